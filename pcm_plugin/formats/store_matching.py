"""Match the images and captions of two feature stores of different models."""

from collections import defaultdict, deque

import numpy as np

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_ids import name_some


def match_stores(first: FeatureStore, second: FeatureStore) -> tuple[np.ndarray, np.ndarray]:
    """Find the images and captions of one store in another, by image id and caption text.

    Both must hold the same images with the same captions; their order may differ.

    Args:
        first: A store of n images with m captions.
        second: Another store.

    Returns:
        The number in ``second`` of each image of ``first``, (n,) int64, and of each caption, (m,)
        int64.

    Raises:
        UserError: If an image id occurs twice in a store, the stores were extracted from different
            generated images, or they differ in an image or caption; the first differences are
            named.
    """
    generated = all("images" in store.settings.get("source", {}) for store in (first, second))
    if generated and {*first.digests} != {*second.digests}:
        raise UserError(
            f"{first.path} and {second.path} were extracted from different generated images: "
            "extract both from the same folder"
        )
    for store in (first, second):
        store.check_unique_ids()
    ids = [store.image_ids for store in (first, second)]
    numbers = {image_id: i for i, image_id in enumerate(ids[1])}
    missing = [image_id for image_id in ids[0] if image_id not in numbers]
    extra = numbers.keys() - set(ids[0])
    if missing or extra:
        sides = ((missing, first), (sorted(extra, key=numbers.__getitem__), second))
        only = [
            f"{len(images):,} are only in {store.path} ({name_some(images)})"
            for images, store in sides
            if images
        ]
        raise UserError(
            f"{first.path} and {second.path} must hold the same images, but {' and '.join(only)}: "
            "extract both from the same images"
        )
    images = np.array([numbers[image_id] for image_id in ids[0]], dtype=np.int64)
    captions = np.empty(first.num_captions, dtype=np.int64)
    for i, j in enumerate(images.tolist()):
        start = int(second.caption_offsets[j])
        texts, others = first.captions(i), second.captions(j)
        numbers_by_text: dict[str, deque[int]] = defaultdict(deque)
        for number, text in enumerate(others, start=start):
            numbers_by_text[text].append(number)
        matched = [numbers_by_text[text].popleft() for text in texts if numbers_by_text[text]]
        if not len(texts) == len(others) == len(matched):
            raise UserError(
                f"image {ids[0][i]!r} has other captions in {first.path} than in {second.path} "
                f"({texts[:2]} and {others[:2]}): extract both with the same captions"
            )
        captions[first.caption_offsets[i] : first.caption_offsets[i + 1]] = matched
    return images, captions
