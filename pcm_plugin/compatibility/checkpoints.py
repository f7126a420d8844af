"""Checkpoints of different versions of torch and NumPy."""

import collections
import pickle
import types
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

try:
    from numpy._core import multiarray
except ImportError:  # NumPy 1
    from numpy.core import multiarray  # type: ignore[no-redef]

__all__ = ["load_tensors_and", "multiarray"]

_TORCH = Version(Version(torch.__version__).base_version)

_NAMED_GLOBALS = Version("2.6") <= _TORCH
"""Whether ``torch.serialization.safe_globals`` accepts a function under another name."""

# What a file with tensors, parameters and arrays refers to.
_PARTS_OF_TENSORS: dict[str, Any] = {
    # How the protocol of torch.save writes bytes.
    "_codecs.encode": lambda text, _: text.encode("latin1"),
    "collections.OrderedDict": collections.OrderedDict,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    **{str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)},
}


def load_tensors_and(allowed: Mapping[str, Any], path: Path, map_location: Any = None) -> Any:
    """Load a file of ``torch.save`` that contains only tensors and what is allowed.

    Args:
        allowed: Classes and functions, by the names with which the file refers to them, such as
            ``'mmengine.logging.history_buffer.HistoryBuffer'``.
        path: The file.
        map_location: See :func:`torch.load`. Defaults to None.

    Returns:
        The content of the file.

    Raises:
        pickle.UnpicklingError: If the file refers to anything else, none of which is executed.
        LookupError: If it is not a file of ``torch.save``.
    """
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK" and zipfile.is_zipfile(file)
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            # torch.load executes the code of such a file, or refuses it with advice to allow that.
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise pickle.UnpicklingError("Unsupported TorchScript archive")
    if _NAMED_GLOBALS:
        pairs: list[Any] = [(value, name) for name, value in allowed.items()]
        with torch.serialization.safe_globals(pairs):
            return torch.load(path, map_location=map_location, weights_only=True)
    if not is_archive:
        raise LookupError("it was not written by torch.save")
    with warnings.catch_warnings():
        # Some versions warn of every load without `weights_only`.
        warnings.simplefilter("ignore", FutureWarning)
        return torch.load(
            path,
            map_location=map_location,
            pickle_module=_pickle_module({**_PARTS_OF_TENSORS, **allowed}),
            weights_only=False,
        )


def _pickle_module(allowed: Mapping[str, Callable]) -> Any:
    """Return an argument ``pickle_module`` for torch.load with a restricted unpickler."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Callable:
            # The name of the module in the protocol of torch.save.
            module = "builtins" if module == "__builtin__" else module
            try:
                return allowed[f"{module}.{name}"]
            except KeyError:
                raise pickle.UnpicklingError(f"Unsupported {module}.{name}") from None

    return types.SimpleNamespace(Unpickler=Unpickler, __name__="restricted_pickle")
