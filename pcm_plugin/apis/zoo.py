"""The captioners that come with the package, by name."""

from pathlib import Path

from mmengine.fileio import load

import pcm_plugin
from pcm_plugin.errors import UserError

METAFILE = Path(pcm_plugin.__file__).parent / "model_zoo" / "metafile.yml"


def register_models() -> list[str]:
    """Make models known to mmpretrain's ``get_model``, ``list_models`` and ``inference_model``.

    Also makes MMEngine read local checkpoints without running what is in them
    (:func:`pcm_plugin.engine.checkpoints.register_safe_loader`), safetensors among them.

    Returns:
        The names.
    """
    from mmpretrain.apis import ModelHub

    from pcm_plugin.engine.checkpoints import register_safe_loader

    register_safe_loader()
    weights = _known()
    if not all(ModelHub.has(name) for name in weights):
        ModelHub.register_model_index(METAFILE, config_prefix=METAFILE.parent)
    for name, file in weights.items():
        # Of weights mmpretrain takes URLs and whole paths only.
        ModelHub._models_dict[name].weights = str(file)
    return list(weights)


def find_weights(name: str) -> Path:
    """The file of a captioner that comes with the package.

    Args:
        name: Its name in the package's ``metafile.yml``.

    Raises:
        UserError: If there is none of this name.
    """
    known = _known()
    if name not in known:
        raise UserError(f"no model is called {name!r}: there are {', '.join(sorted(known))}")
    return known[name]


def _known() -> dict[str, Path]:
    return {m["Name"]: METAFILE.parent / m["Weights"] for m in load(METAFILE)["Models"]}
