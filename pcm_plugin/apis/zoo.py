"""The captioners that come with the package, by name."""

import os
from pathlib import Path
from typing import Any

import pcm_plugin

METAFILE = Path(pcm_plugin.__file__).parent / "model_zoo" / "metafile.yml"


def register_models(metafile: str | os.PathLike = METAFILE) -> list[str]:
    """Make models known to mmpretrain's ``get_model``, ``list_models`` and ``inference_model``.

    Also makes MMEngine read local checkpoints without running what is in them
    (:func:`pcm_plugin.engine.checkpoints.use_safe_loading`), safetensors among them.

    Args:
        metafile: OpenMMLab's ``metafile.yml`` or ``model-index.yml``; configs and weights in it are
            relative to it. Defaults to the package's own.

    Returns:
        The names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a name belongs to another model.
    """
    from mmpretrain.apis import ModelHub

    from pcm_plugin.engine.checkpoints import use_safe_loading

    use_safe_loading()
    names = [entry["Name"] for entry in _entries(Path(metafile))]
    if not all(ModelHub.has(name.lower()) for name in names):
        ModelHub.register_model_index(metafile, config_prefix=Path(metafile).parent)
    for name in names:
        # Of weights mmpretrain takes URLs and whole paths only.
        known = ModelHub._models_dict[name.lower()]
        known.weights = str(Path(metafile).parent / known.weights)
    return names


def find_weights(name: str) -> Path:
    """The file of a captioner that comes with the package.

    Args:
        name: Its name in the package's ``metafile.yml``.

    Raises:
        ValueError: If there is none of this name.
    """
    known = {entry["Name"]: METAFILE.parent / entry["Weights"] for entry in _entries(METAFILE)}
    if name not in known:
        raise ValueError(f"no model is called {name!r}: there are {', '.join(sorted(known))}")
    return known[name]


def _entries(metafile: Path) -> list[dict[str, Any]]:
    from mmengine.fileio import load

    if not metafile.is_file():
        raise FileNotFoundError(f"no metafile at {metafile}")
    return load(metafile)["Models"]
