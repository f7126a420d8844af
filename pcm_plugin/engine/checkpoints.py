"""Reading checkpoints without running what is in them."""

import pickle
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file

from pcm_plugin.engine.cfg_options import format_option
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.models.captioner_file import EXTRA_TENSORS

try:
    from numpy._core import multiarray
except ImportError:  # NumPy 1
    from numpy.core import multiarray  # type: ignore[no-redef]


def _history_method(owner: Any, name: str) -> Any:
    """Stand in for ``getattr``, by which a history's pickle names its own four statistics."""
    if owner is HistoryBuffer and name in ("min", "max", "current", "mean"):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f"Unsupported attribute {name!r} of {owner!r}")


# What MMEngine's message hub puts into a checkpoint: histories of floats and of integer counts,
# and the best score, which a metric may give as a NumPy scalar. NumPy 1 and 2 name the module of
# the first two differently, and either may have written the file.
_ALLOWED: list[Any] = [
    HistoryBuffer,
    (_history_method, "builtins.getattr"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
    *(
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for core in ("core", "_core")
        for function in (multiarray._reconstruct, multiarray.scalar)
    ),
]


def load_local_checkpoint(filename: str, map_location: Any = None) -> dict:
    """Read a checkpoint from a local file.

    Args:
        filename: A ``.safetensors`` file of weights, or one that ``torch.save`` wrote.
        map_location: See :func:`torch.load`.

    Returns:
        What the file holds; for safetensors ``{"state_dict": tensors}``, without what a
        captioner's file brings beside its weights.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If the file is not a checkpoint, asks for a class that is neither torch's nor
            MMEngine's own (nothing in it has been executed then), or if this torch is too old to
            read MMEngine's checkpoints safely.
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
            raise UserError(f"{filename} is not a checkpoint: {error}") from error
    too_old = (
        f"{filename}: torch {torch.__version__} is too old to read checkpoints without running "
        "them: use that of constraints.txt, or a .safetensors file of the weights"
    )
    if not hasattr(torch.serialization, "safe_globals"):
        raise UserError(too_old)
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location=map_location, weights_only=True)
    except AttributeError as error:
        # The first that had it took classes, but not the pairs of a function and its name.
        if "'tuple' object" not in str(error):
            raise
        raise UserError(too_old) from error
    # Bytes that are no pickle at all fail in any way, as KeyError for one.
    except (EOFError, LookupError) as error:
        raise UserError(
            f"{filename} is not a checkpoint: {type(error).__name__} {error}"
        ) from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{filename} is refused: it holds more than tensors and MMEngine's own records, and "
            f"reading it could run foreign code ({_first_sentence(error)}). If it is a released "
            "PCM-Net checkpoint, convert it with tools/convert_pcmnet_checkpoint.py"
        ) from None


def register_safe_loader() -> None:
    """Make :func:`load_local_checkpoint` the reader of MMEngine's runner, for local files.

    Tools call this; importing the package does not, since the reader is MMEngine-wide.
    """
    CheckpointLoader.register_scheme(prefixes="", loader=load_local_checkpoint, force=True)


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint to go on from.

    Args:
        work_dir: The work folder of a run; it may have been moved since.

    Returns:
        The file that the run names as its last, else the newest ``epoch_*`` or ``iter_*`` one,
        else None.
    """
    work_dir = Path(work_dir)
    record = work_dir / "last_checkpoint"
    name = Path(record.read_text().strip()).name if record.is_file() else ""
    if name and (work_dir / name).is_file():
        return work_dir / name
    found = [*work_dir.glob("epoch_*.pth"), *work_dir.glob("iter_*.pth")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def restart_options(filename: str | Path) -> str:
    """Return the options of ``tools/train.py`` that begin a new run with a checkpoint's weights."""
    load_from = shlex.quote(format_option("load_from", str(filename)))
    return f"--work-dir OTHER --cfg-options {load_from}"


def check_resumable(filename: str | Path, model: torch.nn.Module) -> dict[str, Any]:
    """Read a checkpoint to see whether a run can go on from it.

    Args:
        filename: See :func:`load_local_checkpoint`.
        model: One built like the run's; gets the weights.

    Returns:
        What the file holds.

    Raises:
        UserError: If it is no checkpoint, holds weights without a run's state, or weights that do
            not fit the model.
    """
    checkpoint = load_local_checkpoint(str(filename), "cpu")
    needed = ("meta", "message_hub", "optimizer", "state_dict")
    absent = [key for key in needed if key not in checkpoint]
    if absent:
        raise UserError(
            f"{filename} has no {', '.join(absent)}: no run can be resumed from it. To begin a new "
            f"run with its weights, use {restart_options(filename)}"
        )
    _load_strict(model, checkpoint["state_dict"], filename)
    return checkpoint


def load_weights(model: torch.nn.Module, filename: str) -> None:
    """Load weights that must fit.

    Args:
        model: The model; one with a frozen ``backbone`` takes checkpoints trained on stored
            features, which have no weights for it.
        filename: See :func:`load_local_checkpoint`.

    Raises:
        UserError: If the file holds other keys or shapes than the model, or is a checkpoint of
            the released trainer.
    """
    checkpoint = load_local_checkpoint(filename, "cpu")
    if "state_dict" not in checkpoint and isinstance(checkpoint.get("model"), dict):
        raise UserError(
            f"{filename} looks like a checkpoint of the released PCM-Net: convert it with "
            "tools/convert_pcmnet_checkpoint.py first"
        )
    _load_strict(model, checkpoint.get("state_dict", checkpoint), filename)


def _load_strict(
    model: torch.nn.Module, weights: dict[str, torch.Tensor], filename: str | Path
) -> None:
    try:
        keys = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(f"{filename} does not fit the model: {error}") from None
    missing = [key for key in keys.missing_keys if not key.startswith("backbone.")]
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
