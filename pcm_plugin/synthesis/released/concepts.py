"""Import of the released concept list, a pickle, without executing anything in it."""

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.restricted_pickle import load_restricted


class _ConceptUnpickler(pickle.Unpickler):
    """Unpickler that admits only the parts of a (list of str, float16 tensor)."""

    def find_class(self, module: str, name: str) -> Callable:
        # Created for each file: a pickle can set attributes of the objects that it gets.
        admitted: dict[tuple[str, str], Callable] = {
            ("torch._utils", "_rebuild_tensor_v2"): lambda *args: torch._utils._rebuild_tensor_v2(
                *args
            ),
            # The function of torch would unpickle the bytes without restrictions.
            ("torch.storage", "_load_from_bytes"): lambda data: torch.load(
                io.BytesIO(data), map_location="cpu", weights_only=True
            ),
            ("collections", "OrderedDict"): lambda: OrderedDict(),
        }
        try:
            return admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_released_concepts(path: str | os.PathLike) -> tuple[list[str], Tensor]:
    """Read a concept pickle of the released code.

    Args:
        path: A pickle of (C words, (C, Dc) float16 tensor).

    Returns:
        The words, and their CLIP text embeddings (C, Dc) in float32 as stored, not normalized.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If the file contains anything else, none of which is executed.
    """
    path = Path(path)
    content = load_restricted(path, _ConceptUnpickler, "concept")
    if not isinstance(content, tuple) or len(content) != 2:
        raise UserError(
            f"{path} is not a released concept list: it must be a pair of words and a tensor"
        )
    words, embeddings = content
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(f"{path} is not a released concept list: its words must be a list of str")
    if (
        not isinstance(embeddings, Tensor)
        or embeddings.dtype != torch.float16
        # An expanded tensor could claim any size.
        or not embeddings.is_contiguous()
        or embeddings.dim() != 2
        or len(embeddings) != len(words)
    ):
        raise UserError(
            f"{path} is not a released concept list: {len(words)} words need one float16 tensor "
            f"({len(words)}, Dc)"
        )
    return words, embeddings.float()
