"""Captioners that come with the package."""

from pathlib import Path

from mmengine.fileio import load

import pcm_plugin
from pcm_plugin.errors import UserError

_PACKAGE = Path(pcm_plugin.__file__).parent
METAFILE = _PACKAGE / "model_zoo" / "metafile.yml"


def register_models() -> list[str]:
    """Register the models for mmpretrain's ``get_model``, ``list_models`` and ``inference_model``.

    Also registers a loader for local checkpoints that reads safetensors and does not unpickle
    arbitrary objects (:func:`pcm_plugin.engine.checkpoints.register_safe_loader`).

    Returns:
        Names of the models.
    """
    from mmpretrain.apis import ModelHub

    from pcm_plugin.engine.checkpoints import register_safe_loader

    register_safe_loader()
    weights = weights_by_name()
    if not all(ModelHub.has(name) for name in weights):
        ModelHub.register_model_index(METAFILE, config_prefix=_PACKAGE)
    for name, file in weights.items():
        # mmpretrain takes weights as a URL or an absolute path only.
        ModelHub._models_dict[name].weights = str(file)
    return list(weights)


def find_weights(name: str) -> Path:
    """Return the file of a captioner that comes with the package.

    Args:
        name: Name in ``model_zoo/metafile.yml``.

    Raises:
        UserError: If there is no model of this name.
    """
    weights = weights_by_name()
    if name not in weights:
        raise UserError(
            f"the model must be one of {', '.join(sorted(weights))} or a file, got {name!r}"
        )
    return weights[name]


def weights_by_name() -> dict[str, Path]:
    """Return the files of the captioners that come with the package, by name."""
    return {m["Name"]: _PACKAGE / m["Weights"] for m in load(METAFILE)["Models"]}
