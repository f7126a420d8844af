"""Time and disk space per sample of each stage, measured on a few samples."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.feature_shard import image_line
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.models.functional.retrieval import chunked_topk
from pcm_plugin.synthesis.extract.encode_captions import TEXT_BATCH, encode_by_length
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.extract.sources import Source
from pcm_plugin.synthesis.generate.generate_images import encode
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.generate.text2image import GenerationRequest, ImageGenerator
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.refine.sentence_encoder import SentenceEncoder

_WORKERS = 4  # the default of extract_features
_TIMED_CAPTIONS = 256
_OFFSET_BYTES = 8  # per caption


def time_generation(
    captions: Iterable[Caption], recipe: Recipe, settings: GenerateSettings, device: str
) -> tuple[float, float, list[Image.Image], list[str]]:
    """Return seconds and bytes per image, and the generated images with their captions."""
    first = list(itertools.islice(captions, 2 * recipe.generate_batch))
    requests = [GenerationRequest(caption.id, caption.text) for caption in first]
    images: list[Image.Image] = []
    sizes: list[int] = []

    def generate(batch: list[GenerationRequest]) -> None:
        new = [result.image for result in generator.generate(batch) if result.image]
        sizes.extend(len(encode(image, settings)) for image in new)
        images.extend(new)

    generator = ImageGenerator(settings, device, recipe.offload)
    seconds = _seconds_each(list(_batches(requests, recipe.generate_batch)), generate, device)
    if not images:
        raise UserError("none of the first images is usable: check the settings of the recipe")
    return seconds, sum(sizes) / len(sizes), images, [request.text for request in requests]


def time_extraction(
    settings: ExtractSettings, size: int, device: str, images: list[Image.Image], texts: list[str]
) -> tuple[float, float, int]:
    """Return seconds and bytes per image, and the width of CLIP."""
    clip = settings.load_clip().to(device)

    @torch.inference_mode()
    def extract(batch: list[int]) -> None:
        with ThreadPoolExecutor(_WORKERS) as pool:
            pixels = list(pool.map(clip.preprocess, (images[i % len(images)] for i in batch)))
        clip(torch.stack(pixels).to(device))
        clip.encode_text([texts[i % len(texts)] for i in batch])

    seconds = _seconds_each([list(range(size)), list(range(size))], extract, device)
    width = _dtype_bytes(settings)
    num_patches = clip.num_patches if settings.patches else 0
    return seconds, width * (num_patches * clip.patch_dim + 2 * clip.clip_dim), clip.clip_dim


def time_captions(
    settings: ExtractSettings, device: str, captions: Iterable[Caption]
) -> tuple[float, float]:
    """Return seconds and bytes per caption of a store of captions alone."""
    clip = settings.load_clip().to(device)
    first = list(itertools.islice(captions, _TIMED_CAPTIONS))
    texts = [caption.text for caption in first]
    encode_by_length(clip, texts[:TEXT_BATCH], settings)  # the warm-up
    seconds = _seconds_each([texts], lambda batch: encode_by_length(clip, batch, settings), device)
    lines = (image_line({"image_id": c.id, "captions": [c.text]}) for c in first)
    line = sum(map(len, lines)) / len(first)
    return seconds, _dtype_bytes(settings) * clip.clip_dim + _OFFSET_BYTES + line


def read_first_images(source: Source, count: int) -> list[Image.Image]:
    """Return up to ``count`` of the first images that can be read.

    Raises:
        UserError: If there is none.
    """
    images = []
    for image in itertools.islice(
        itertools.chain.from_iterable(map(source.read, source.shards)), count
    ):
        with contextlib.suppress(OSError, UserError):
            images.append(read_image(image.data()))
    if not images:
        raise UserError(
            f"none of the first {count} real images can be read: check --val and --test"
        )
    return images


def time_sentences(recipe: Recipe, device: str, texts: list[str]) -> tuple[float, int]:
    """Return seconds and bytes per caption; 0 without a sentence encoder."""
    if recipe.refine is None or recipe.refine.sentence_encoder is None:
        return 0.0, 0
    encoder = SentenceEncoder(recipe.refine.sentence_encoder, recipe.refine.pooling, device)
    batch = [texts[i % len(texts)] for i in range(256)]
    width = encoder.encode(batch[:1]).shape[1]
    return _seconds_each([batch, batch], encoder.encode, device), 4 * width


def time_matching(count: int, clip_dim: int, device: str) -> float:
    """Return the seconds of a search for the nearest of ``count`` rows."""
    keys = torch.randn(min(count, 8192), clip_dim, device=device)
    queries = torch.randn(1024, clip_dim, device=device)
    batches = [queries, queries]
    seconds = _seconds_each(batches, lambda rows: chunked_topk(rows, [keys], 15), device)
    return seconds * count / len(keys)


def _dtype_bytes(settings: ExtractSettings) -> int:
    return 4 if settings.dtype == "float32" else 2


def _batches(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _seconds_each(batches: Sequence, work: Callable, device: str) -> float:
    """Return the seconds per sample of the last full batch; the first one is the warm-up."""
    seconds = 0.0
    for batch in [b for b in batches if len(b) == len(batches[0])]:
        start = time.perf_counter()
        work(batch)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / len(batch)
    return seconds
