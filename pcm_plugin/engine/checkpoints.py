"""Load checkpoints without executing code from them."""

import pickle
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file

from pcm_plugin.compatibility.checkpoints import load_tensors_and, multiarray
from pcm_plugin.engine.cfg_options import format_option
from pcm_plugin.engine.weight_checks import check_origin
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.models.captioner_file import EXTRA_TENSORS, shared_tensors


def _history_method(owner: Any, name: str) -> Any:
    """Replace ``getattr``, which the pickle of a history uses for its four statistics."""
    if owner is HistoryBuffer and name in ("min", "max", "current", "mean"):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f"Unsupported attribute {name!r} of {owner!r}")


# MMEngine's message hub stores histories of floats and of integer counts in a checkpoint, and the
# best score, which may be a NumPy scalar. The modules have different names in NumPy 1 and 2, and
# either may have written the file.
_CLASSES = (HistoryBuffer, np.ndarray, np.dtype)
_DTYPES = tuple(type(np.dtype(name)) for name in ("float64", "float32", "int64"))
_ALLOWED: dict[str, Any] = {
    **{f"{cls.__module__}.{cls.__qualname__}": cls for cls in (*_CLASSES, *_DTYPES)},
    "builtins.getattr": _history_method,
    **{
        f"numpy.{core}.multiarray.{function.__name__}": function
        for core in ("core", "_core")
        for function in (multiarray._reconstruct, multiarray.scalar)
    },
}


def load_local_checkpoint(filename: str, map_location: Any = None) -> dict:
    """Load a checkpoint from a local file.

    Args:
        filename: ``.safetensors`` file of weights, or a file that ``torch.save`` wrote.
        map_location: See :func:`torch.load`. Defaults to None.

    Returns:
        The content of the file. For safetensors ``{"state_dict": tensors}``, without the additional
        tensors of a captioner file.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If the file is not a checkpoint, or refers to anything other than tensors and
            the records of MMEngine; such code is not executed.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise MissingFileError(f"checkpoint {filename} does not exist")
    if path.suffix == ".safetensors":
        device = "cpu" if map_location is None else str(map_location)
        try:
            weights = load_file(path, device=device)
            return {"state_dict": {k: v for k, v in weights.items() if k not in EXTRA_TENSORS}}
        except SafetensorError as error:
            raise UserError(f"{filename} is not a checkpoint, or it is damaged: {error}") from error
    try:
        return load_tensors_and(_ALLOWED, path, map_location)
    # Files that are not a pickle fail in many ways, for example with a KeyError; torch refuses a
    # damaged archive with a RuntimeError.
    except (EOFError, LookupError, RuntimeError) as error:
        raise UserError(
            f"{filename} is not a checkpoint, or it is damaged: {type(error).__name__} {error}"
        ) from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{filename} is refused: it contains more than tensors and MMEngine's records, and "
            f"loading it could execute code ({_first_sentence(error)}). If it is a released "
            "PCM-Net checkpoint, convert it with `pcm convert-pcmnet-checkpoint`"
        ) from None


def register_safe_loader() -> None:
    """Let MMEngine's runner load local files with :func:`load_local_checkpoint`.

    Commands call this function. Importing the package does not, since it affects all of MMEngine.
    """
    CheckpointLoader.register_scheme(prefixes="", loader=load_local_checkpoint, force=True)


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the checkpoint from which a run is resumed.

    Args:
        work_dir: Work folder of the run. It may have been moved.

    Returns:
        The file that the run recorded as its last, otherwise the newest ``epoch_*`` or ``iter_*``
        file, otherwise None.
    """
    work_dir = Path(work_dir)
    record = work_dir / "last_checkpoint"
    name = Path(record.read_text().strip()).name if record.is_file() else ""
    if name and (work_dir / name).is_file():
        return work_dir / name
    files = [*work_dir.glob("epoch_*.pth"), *work_dir.glob("iter_*.pth")]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def restart_options(filename: str | Path) -> str:
    """Return the options of ``pcm train`` that start a new run from a checkpoint's weights."""
    load_from = shlex.quote(format_option("load_from", str(filename)))
    return f"--work-dir OTHER --cfg-options {load_from}"


def check_resumable(filename: str | Path, model: torch.nn.Module) -> dict[str, Any]:
    """Load a checkpoint and check that a run can be resumed from it.

    Args:
        filename: See :func:`load_local_checkpoint`.
        model: Model built from the config of the run. The weights are loaded into it.

    Returns:
        The content of the file.

    Raises:
        UserError: If the file is not a checkpoint, contains only weights, or its weights do not
            fit the model.
    """
    checkpoint = load_local_checkpoint(str(filename), "cpu")
    needed = ("meta", "message_hub", "optimizer", "state_dict")
    absent = [key for key in needed if key not in checkpoint]
    if absent:
        raise UserError(
            f"{filename} has no {', '.join(absent)}: a run cannot be resumed from it. To start a "
            f"new run from its weights, use {restart_options(filename)}"
        )
    _load_strict(model, checkpoint["state_dict"], filename)
    return checkpoint


def load_weights(
    model: torch.nn.Module, filename: str, cfg: Config | None = None, loops: Iterable[str] = ()
) -> None:
    """Load weights into a model and check that they fit.

    Args:
        model: The model. Weights of its frozen ``backbone`` may be missing, as in checkpoints that
            were trained on stored features.
        filename: See :func:`load_local_checkpoint`.
        cfg: Config whose vocabulary and CLIP are compared with those of the training. Defaults to
            None: not compared.
        loops: See :func:`.check_origin`. Defaults to none: the CLIP of the config computes the
            features.

    Raises:
        UserError: If the keys or shapes in the file differ from those of the model, it is a
            checkpoint of the released code, or it was trained with another vocabulary or CLIP.
    """
    checkpoint = load_local_checkpoint(filename, "cpu")
    if "state_dict" not in checkpoint and isinstance(checkpoint.get("model"), dict):
        raise UserError(
            f"{filename} looks like a checkpoint of the released PCM-Net: convert it with "
            "`pcm convert-pcmnet-checkpoint` first"
        )
    if cfg is not None:
        check_origin(filename, checkpoint, cfg, loops)
    _load_strict(model, checkpoint.get("state_dict", checkpoint), filename)


def _load_strict(
    model: torch.nn.Module, weights: dict[str, torch.Tensor], filename: str | Path
) -> None:
    try:
        keys = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(f"{filename} does not fit the model: {error}") from None
    shared = shared_tensors(model.state_dict())
    missing = [
        key
        for key in keys.missing_keys
        if not key.startswith("backbone.") and shared.get(key) not in weights
    ]
    if missing or keys.unexpected_keys:
        raise UserError(
            f"{filename} does not fit the model: "
            f"missing {missing or 'nothing'}, unexpected {keys.unexpected_keys or 'nothing'}"
        )


def _first_sentence(error: Exception) -> str:
    for line in str(error).splitlines():
        if "Unsupported" in line or "unsupported" in line:
            return line.split(". ")[0].strip()
    return str(error).splitlines()[0].strip()
