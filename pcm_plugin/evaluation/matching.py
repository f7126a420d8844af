"""Match images of predictions and references by ids, file names and numbers."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

from pcm_plugin.errors import UserError
from pcm_plugin.formats.image_ids import coco_number, name_some, results_id, strip_image_suffix

_NUMBER = re.compile(r"0*([0-9]+)(?:\.0+)?")


class ImageName(NamedTuple):
    """Identity of an image in a file.

    Attributes:
        image_id: Its id as text.
        file_name: File of the image, None if it is not named.
    """

    image_id: str
    file_name: str | None = None


_Key = Callable[[ImageName], Hashable | None]


def match_images(
    predictions: Sequence[ImageName], references: Sequence[ImageName]
) -> list[int | None]:
    """Find the reference image of each prediction.

    The rules below are applied in this order to the images that are not matched yet. A rule matches
    only if exactly one prediction and one reference agree:

    1. file names, if both sides have them: by as many trailing parts of the path as possible;
    2. ids as text, then in Unicode NFC without surrounding white space;
    3. an id of the prediction that is a file name or a path, with the file of the reference;
    4. the same without suffixes of image formats, with the file or id of the reference;
    5. numbers of numeric and COCO file names, such as ``COCO_val2014_000000000042.jpg``,
       ``000000000042.jpg`` and ``42.png``; then numeric ids without leading zeros.

    Images whose file names have different numbers are never matched.

    Args:
        predictions: n images with different ids.
        references: m images with different ids.

    Returns:
        Index of the reference image for each prediction, None if it has none.

    Raises:
        UserError: If a prediction agrees with several images, or several predictions with one,
            and no rule decides. The message lists the ids.
    """
    matched: dict[int, int] = {}
    free = set(range(len(references)))
    undecided: list[tuple[list[int], list[int]]] = []
    for of_prediction, of_reference in _rules(references):
        ours, theirs = defaultdict(list), defaultdict(list)
        for p, name in enumerate(predictions):
            if p not in matched and (key := of_prediction(name)) is not None:
                ours[key].append(p)
        if not ours:
            continue
        for r in sorted(free):
            if (key := of_reference(references[r])) in ours and key is not None:
                theirs[key].append(r)
        for key, candidates in theirs.items():
            if len(ours[key]) == len(candidates) == 1:
                if not _contradict(predictions[ours[key][0]], references[candidates[0]]):
                    matched[ours[key][0]] = candidates[0]
                    free.discard(candidates[0])
            else:
                undecided.append((ours[key], candidates))
    for some, candidates in undecided:
        left = [p for p in some if p not in matched]
        if left and not free.isdisjoint(candidates):
            raise UserError(
                f"images cannot be matched: predictions with id {_ids(predictions, left)} agree "
                f"with references with id {_ids(references, candidates)}; use the same ids, or "
                "file names that differ, in both files"
            )
    return [matched.get(p) for p in range(len(predictions))]


def _ids(names: Sequence[ImageName], chosen: Sequence[int]) -> str:
    return name_some(names[i].image_id for i in chosen)


def _rules(references: Sequence[ImageName]) -> Iterator[tuple[_Key, _Key]]:
    """Yield key functions for predictions and references, in the order of the rules."""
    deepest = max((_path(_file_or_id(name)).count("/") for name in references), default=0)
    depths = range(deepest + 1, 0, -1)
    for k in depths:
        yield _cut(_tail, _file, k), _cut(_tail, _file, k)
    yield _id, _id
    yield lambda name: _text(name.image_id), lambda name: _text(name.image_id)
    for k in depths:
        yield _cut(_tail, _id, k), _cut(_tail, _file, k)
    for k in depths:
        yield _cut(_stem, _id, k), _cut(_stem, _file_or_id, k)
    for k in depths:
        yield _cut(_stem, _file, k), _cut(_stem, _file_or_id, k)
    yield _number_of_file, lambda name: results_id(_file_or_id(name))
    yield _number_of_id, _number_of_id_or_file


def _cut(
    cut: Callable[[str | None, int], str | None], part: Callable[[ImageName], str | None], k: int
) -> _Key:
    return lambda name: cut(part(name), k)


def _id(name: ImageName) -> str:
    return name.image_id


def _file(name: ImageName) -> str | None:
    return name.file_name


def _contradict(prediction: ImageName, reference: ImageName) -> bool:
    """Return whether both images have files, and the files have different numbers."""
    if prediction == (reference.image_id, None):
        return False
    ours = _number_of_file(prediction)
    theirs = results_id(reference.file_name or "")
    return None not in (ours, theirs) and ours != theirs


def _file_or_id(name: ImageName) -> str:
    return name.file_name or name.image_id


def _text(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _path(text: str) -> str:
    return _text(text).replace("\\", "/").strip("/")


def _tail(text: str | None, parts: int) -> str | None:
    """Return the last parts of a path; None if it has fewer."""
    if not text:
        return None
    names = _path(text).split("/")
    return "/".join(names[-parts:]) if len(names) >= parts else None


def _stem(text: str | None, parts: int) -> str | None:
    tail = _tail(text, parts)
    return None if tail is None else strip_image_suffix(tail)


def _is_file(text: str) -> bool:
    return strip_image_suffix(text) != text or coco_number(text) is not None


def _number_of_file(name: ImageName) -> int | None:
    place = _path(_file_or_id(name))
    return results_id(place) if _is_file(place) else None


def _number_of_id(name: ImageName) -> int | None:
    stem = strip_image_suffix(_path(name.image_id).rpartition("/")[2])
    return coco_number(stem) or _number(stem)


def _number_of_id_or_file(name: ImageName) -> int | None:
    number = _number(_path(name.image_id))
    return results_id(_file_or_id(name)) if number is None else number


def _number(text: str) -> int | None:
    match = _NUMBER.fullmatch(text)
    return int(match[1]) if match else None
