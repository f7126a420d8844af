"""Read the tensors of a TorchScript archive without running its code.

A TorchScript archive (``torch.jit.save``) is a zip file: ``data.pkl`` holds the tree of modules as
a pickle, ``data/N`` the bytes of its tensors, and ``code/`` the program. ``torch.jit.load``
compiles that program. This module reads only the tree, with an unpickler that allows nothing but
tensors and placeholders for the modules.
"""

import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcm_plugin.errors import UserError

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = {f"build_{kind}list" for kind in ("int", "double", "bool", "tensor")}


class TorchScriptTensors(NamedTuple):
    """Content of a TorchScript archive.

    Attributes:
        tensors: Parameters, buffers and other tensor attributes by their dotted names.
        classes: Names of the module classes, without their packages, e.g. ``'LayerNorm'``.
    """

    tensors: dict[str, Tensor]
    classes: set[str]


def is_torchscript(path: str | Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: str | Path) -> TorchScriptTensors:
    """Read the tensors of a TorchScript archive; its code is not run.

    Args:
        path: The file.

    Returns:
        Its tensors, on the CPU, and the names of its module classes.

    Raises:
        UserError: If it is damaged, or contains anything but tensors and modules.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    # A manipulated archive can fail in any way.
    except Exception as error:
        raise UserError(f"{path} cannot be read as a TorchScript archive: {error}") from error


def _read(archive: zipfile.ZipFile) -> TorchScriptTensors:
    (root,) = {name.partition("/")[0] for name in archive.namelist()}
    if f"{root}/byteorder" in archive.namelist():
        order = archive.read(f"{root}/byteorder").decode()
        if order != sys.byteorder:
            raise UserError(f"its bytes are in {order}-endian order")
    with archive.open(f"{root}/data.pkl") as file:
        unpickler = _Unpickler(file, archive, root)
        module = unpickler.load()
    if not isinstance(module, _Module):
        raise UserError("it holds no module")
    tensors: dict[str, Tensor] = {}
    _collect(module, "", tensors, ())
    return TorchScriptTensors(tensors, unpickler.classes)


class _Module:
    """Placeholder for a TorchScript module, with its attributes only."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}
        self.classes: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            self.classes.add(name)
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return _first
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it refers to {kind!r}, which is not a storage")
        if key not in self._storages:
            entry = self._archive.getinfo(f"{self._root}/data/{key}")
            if (
                entry.compress_type != zipfile.ZIP_STORED
                or entry.file_size != count * dtype.itemsize
            ):
                raise pickle.UnpicklingError(f"storage {key} does not have the size that it says")
            data = bytearray(self._archive.read(entry))
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else empty
        return self._storages[key]


def _first(value: Any, *_: Any) -> Any:
    return value


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    # as_strided refuses to look outside of the storage.
    return storage.as_strided(size, stride, offset)


def _collect(
    module: _Module, prefix: str, tensors: dict[str, Tensor], parents: tuple[_Module, ...]
) -> None:
    if module in parents:
        raise UserError("its modules contain each other")
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{name}"] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", tensors, (*parents, module))
