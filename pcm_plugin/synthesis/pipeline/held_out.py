"""Choice of the captions that are held out of training for validation."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pcm_plugin.synthesis.pipeline.corpus_settings import ValidationSettings
from pcm_plugin.synthesis.pipeline.near_duplicates import find_near_duplicates

MIN_IMAGES = 10
"""If fewer images can be held out, none is, since a score of so few tells nothing."""


class HeldOut(NamedTuple):
    """Captions that are not trained on, as positions in the corpus, in ascending order.

    Attributes:
        validation: Captions for validation.
        near_duplicates: Captions of other images that are near-duplicates of those.
    """

    validation: list[int]
    near_duplicates: list[int]


def hold_out(
    image_ids: Sequence[str],
    texts: Sequence[str],
    split: Callable[[str], list[str]],
    settings: ValidationSettings,
) -> HeldOut:
    """Choose captions for validation, such that no training caption is a near-duplicate of them.

    Captions of an image are held out together. Images are drawn in the order of a hash of their id
    and the seed, so more captions change the choice little. Near-duplicates of the chosen captions
    are used for neither training nor validation. An image is passed over if it would make all of
    these captions more than ``settings.max_share`` of the corpus.

    Args:
        image_ids: Image of each of n captions.
        texts: The captions.
        split: Splits a caption into words.
        settings: The settings.

    Returns:
        The captions; none if they would be of fewer than :data:`MIN_IMAGES` images.
    """
    groups: dict[str, list[int]] = {}
    for position, image_id in enumerate(image_ids):
        groups.setdefault(image_id, []).append(position)
    most = int(settings.max_share * len(image_ids) + 1e-9)
    candidates: list[list[int]] = []
    left = min(settings.captions, most)
    for image_id in sorted(groups, key=lambda key: _order(key, settings.seed)):
        if len(groups[image_id]) <= left:
            candidates.append(groups[image_id])
            left -= len(groups[image_id])
        if not left:
            break
    wanted = sorted(position for group in candidates for position in group)
    numbers = {position: number for number, position in enumerate(wanted)}
    words = [split(texts[position]) for position in wanted]
    similar = find_near_duplicates(words, map(split, texts), settings.similarity)
    validation: set[int] = set()
    withheld: set[int] = set()
    images = 0
    for group in candidates:
        larger = withheld.union(group, *(similar[numbers[position]] for position in group))
        if len(larger) <= most:
            validation.update(group)
            withheld = larger
            images += 1
    if images < MIN_IMAGES:
        return HeldOut([], [])
    return HeldOut(sorted(validation), sorted(withheld - validation))


def _order(image_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {image_id}".encode(), digest_size=16).digest()
