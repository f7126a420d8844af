"""Reader of the released annotation lists, which does not execute their pickled code."""

import codecs
import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pcm_plugin.errors import UserError
from pcm_plugin.formats.caption_vocabulary import IGNORE_INDEX
from pcm_plugin.formats.image_ids import normalize_id, unique_ids
from pcm_plugin.formats.restricted_pickle import load_restricted
from pcm_plugin.formats.vocabulary import Vocabulary


class ReleasedPair(NamedTuple):
    """An image of SynthImgCap with its released annotations.

    Attributes:
        image_id: Id in the file, which names its features and its image file.
        split_id: Part of the data set (of eight) that has its files, or None without parts.
        captions: Decoded captions, usually one.
        clip_scores: 2.5 * cosine of each caption, or None if the file has none.
        key: Unique id in a feature store: ``image_id``, or ``PART-ID`` if several parts have that
            id. Empty until :func:`read_released_annotations` sets it.
    """

    image_id: str
    split_id: str | None
    captions: list[str]
    clip_scores: list[float] | None
    key: str = ""

    def format_path(self, path_template: str) -> str:
        """Return the path of a file of this image.

        Args:
            path_template: Template with the fields ``{split_id}`` and ``{image_id}``.

        Raises:
            UserError: If the template has other fields, or ``{split_id}`` without parts.
        """
        values = {"image_id": self.image_id}
        if self.split_id is not None:
            values["split_id"] = self.split_id
        try:
            return path_template.format(**values)
        except (LookupError, ValueError):
            fields = " and ".join(f"{{{key}}}" for key in sorted(values, reverse=True))
            raise UserError(
                f"path_template must only have the fields {fields}, got {path_template!r}"
            ) from None


class _DType:
    """Replacement of ``numpy.dtype`` that accepts only plain numbers."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[<>=|]?[biuf][1248]", str(code)):
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Replacement of ``numpy.ndarray``, whose ``__setstate__`` does not validate its input."""

    value: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("it holds an array that does not consist of numbers")
        flat = np.frombuffer(data, dtype.value)
        self.value = flat.reshape(shape, order="F" if by_columns else "C")


def _array(data: bytes, dtype: _DType, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", bytes(data)))
    return array


class _AnnotationUnpickler(pickle.Unpickler):
    """Unpickler that accepts only lists, dicts, texts and arrays of plain numbers."""

    def find_class(self, module: str, name: str) -> Callable:
        # New functions for each file, since a pickle can set attributes of what it gets.
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "_reconstruct":
                return lambda *_: _Array()
            if name == "scalar":
                return lambda dtype, data: np.frombuffer(data, dtype.value)[0].item()
        # Protocol 5 pickles arrays in another way.
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return lambda *args: _array(*args)
        # Protocols up to 2 write bytes as text.
        if (module, name) == ("_codecs", "encode"):
            return lambda text, _: codecs.encode(text, "latin1")
        if module == "numpy" and name in ("ndarray", "dtype"):
            kind = _Array if name == "ndarray" else _DType
            return lambda *args: kind(*args)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_released_annotations(
    path: str | os.PathLike, vocabulary: Vocabulary
) -> list[ReleasedPair]:
    """Read an annotation pickle of the released code.

    Entries with the same part and id are joined into one image with all their captions.

    Args:
        path: A pickle of a list of ``{image_id, split_id, tokens_ids (n, 20), target_ids (n, 20),
            clipscore}``; ``split_id`` and ``clipscore`` may be missing.
        vocabulary: The ``vocabulary.txt`` that was released with it.

    Returns:
        The images in the order of the file.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If the file holds or requires anything else, of which nothing is executed, or
            does not match the vocabulary.
    """
    path = Path(path)
    rows = load_restricted(path, _AnnotationUnpickler, "annotation")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} is not a released annotation list: it holds no list of images")
    return _with_keys(_joined(_pairs(rows, vocabulary, path)))


def _joined(pairs: Iterable[ReleasedPair]) -> list[ReleasedPair]:
    joined: dict[tuple[str | None, str], ReleasedPair] = {}
    for pair in pairs:
        first = joined.setdefault((pair.split_id, pair.image_id), pair)
        if first is not pair:
            both = first.clip_scores is not None and pair.clip_scores is not None
            joined[pair.split_id, pair.image_id] = first._replace(
                captions=first.captions + pair.captions,
                clip_scores=first.clip_scores + pair.clip_scores if both else None,  # type: ignore
            )
    return [*joined.values()]


def _with_keys(pairs: list[ReleasedPair]) -> list[ReleasedPair]:
    candidates: list[list[int | str]] = [
        [pair.image_id]
        if pair.split_id is None
        else [pair.image_id, f"{pair.split_id}-{pair.image_id}"]
        for pair in pairs
    ]
    keys = unique_ids(candidates)
    return [pair._replace(key=str(key)) for pair, key in zip(pairs, keys, strict=True)]


def _pairs(rows: list, vocabulary: Vocabulary, path: Path) -> Iterator[ReleasedPair]:
    for number, row in enumerate(rows):
        place = f"{path}: entry {number}"
        try:
            targets, image_id = row["target_ids"].value, row["image_id"]
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{place}: no image_id and target_ids") from None
        # The released loader takes entries without these two as well.
        split_id, scores = row.get("split_id"), row.get("clipscore", [])
        scores = np.atleast_1d(scores.value if isinstance(scores, _Array) else scores).ravel()
        if (
            targets.ndim != 2
            or targets.dtype.kind not in "iu"
            or len(scores) not in (0, 1, len(targets))
        ):
            raise UserError(f"{place}: target_ids {targets.shape} with {len(scores)} clipscores")
        # Released as unsigned in some files, where the padding of -1 is the largest number.
        targets = targets.astype(np.int64)
        targets[targets >= 2**31] = IGNORE_INDEX
        is_valid = (targets >= IGNORE_INDEX) & (targets < len(vocabulary))
        if not is_valid.all():
            raise UserError(
                f"{place}: word indices must be -1 to {len(vocabulary) - 1} with this "
                f"vocabulary, got {targets[~is_valid][0]}: pass the vocabulary that was released "
                "with this file"
            )
        captions = [vocabulary.decode(ids[ids != IGNORE_INDEX]) for ids in targets]
        each = np.broadcast_to(scores, len(targets)).astype(float).tolist() if len(scores) else None
        part = None if split_id is None else str(split_id)
        try:
            yield ReleasedPair(normalize_id(image_id), part, captions, each)
        except UserError as error:
            raise UserError(f"{place}: image_id: {error}") from None
