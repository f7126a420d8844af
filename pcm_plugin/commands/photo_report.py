"""Measurements on photos without captions, from the options of ``pcm report --photos``."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from torch import Tensor
from tqdm import tqdm

from pcm_plugin.commands.photo_store import (
    find_concepts,
    generated_images,
    open_photos,
    write_statistics,
)
from pcm_plugin.datasets import SynthCaptionDataset
from pcm_plugin.engine.caption_metrics import caption_metric_settings, captions_language
from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.clip_score import embed_texts
from pcm_plugin.evaluation.concept_counts import (
    ConceptComparison,
    ConceptFinder,
    compare_concepts,
)
from pcm_plugin.evaluation.domain_gap import DomainGap, domain_gap
from pcm_plugin.evaluation.reference_free import reference_free_scores
from pcm_plugin.formats.concept_set import ConceptSet
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.languages import is_by_character, is_english, split_words
from pcm_plugin.formats.pair_selection import load_pairs
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.functional.concept_retrieval import retrieve_concepts

MAX_IMAGES = 2000
"""Photos, and synthetic images, that are captioned and compared; drawn at random from more."""
FEW_PHOTOS = 100
MAX_CAPTIONS = 10_000
"""Training captions in which frequent concepts are counted; drawn at random from more."""
TOP_CONCEPTS, MIN_PROBABILITY, TEMPERATURE = 5, 0.1, 0.01
"""CLIP finds a concept in an image if it is among the 5 nearest and its probability, a softmax over
all concepts at this temperature, is above 0.1."""
MIN_NAMING = 1.0
"""Percentage of training captions that name a concept, below which the concepts count as words of
another language."""
_BATCH = 32


@dataclass
class ImageSet:
    """Captioned images of one kind.

    Attributes:
        store: Their store.
        rows: Their numbers in it.
        feats: (n, Dc) CLIP embeddings.
        captions: Predicted captions.
        found: Concepts that CLIP finds in each; None without concepts.
        named: Those of them that its caption names; None if they cannot be found in captions.
        scores: Scores of the captions.
    """

    store: FeatureStore
    rows: list[int]
    feats: Tensor
    captions: list[str]
    found: list[list[str]] | None
    named: list[list[str]] | None
    scores: dict[str, float]


@dataclass
class PhotoResults:
    """Everything that the page shows about photos.

    Attributes:
        photos: The photos.
        synthetic: Synthetic images of the training; None without them.
        training_scores: Scores of the training captions of the synthetic images.
        gap: Gap between synthetic images (first) and photos.
        concepts: Concepts of photos, synthetic images and captions.
        uses_photos: Whether training captions are assigned to images without captions.
        num_skipped: Photos that could not be read.
    """

    photos: ImageSet
    synthetic: ImageSet | None = None
    training_scores: dict[str, float] = field(default_factory=dict)
    gap: DomainGap | None = None
    concepts: ConceptComparison = field(default_factory=ConceptComparison)
    uses_photos: bool = False
    num_skipped: int = 0


def measure_photos(
    cfg: Config, model: Any, args: argparse.Namespace, device: str, notes: list[str]
) -> PhotoResults:
    """Caption photos and synthetic images, and measure captions and gap.

    Args:
        cfg: Config of the run.
        model: Its captioner on ``device``.
        args: Parsed arguments.
        device: Device of CLIP.
        notes: Remarks, which are appended.

    Raises:
        MissingFileError: If the folder or its images are missing.
        UserError: If no photo can be read, or the photos and the training have different CLIPs.
    """
    dataset = cfg.train_dataloader.dataset
    if dataset.get("object_labels") is not None:
        raise UserError(
            "--photos cannot be used with a captioner that reads `object_labels` from a file, got "
            f"{dataset.object_labels}: it has no labels of the photos"
        )
    train = FeatureStore(dataset.store)
    photos, num_skipped = open_photos(cfg, args, train, device)
    if args.statistics:
        write_statistics(args.statistics, train, photos)
    if num_skipped:
        notes.append(f"{num_skipped:,} photos could not be read and are left out.")
    language = choose_language(cfg, args.language, notes)
    features = "patch" if dataset.get("features", "patch") == "patch" else "global"
    texts = list(SynthCaptionDataset(**_without_type(dataset)).iter_captions())
    known = {" ".join(split_words(text, language)) for text in texts}
    concepts = find_concepts(cfg)
    drawn = sample(np.arange(len(texts)), MAX_CAPTIONS)
    training = [split_words(texts[i], language) for i in drawn]
    finder = find_in_captions(concepts, training, language, notes)
    clip = OpenCLIPBackbone(**cfg.clip).eval().to(device)

    def measure(store: FeatureStore, rows: list[int], title: str) -> ImageSet:
        captions = caption_rows(model, store, rows, features, title)
        feats = store.read_rows("global_feats", rows)
        found = None if concepts is None else find_in_images(feats, concepts)
        named, scores = score(feats, captions, found)
        return ImageSet(store, rows, feats, captions, found, named, scores)

    def score(
        feats: Tensor, captions: list[str], found: list[list[str]] | None
    ) -> tuple[list[list[str]] | None, dict[str, float]]:
        tokens = [split_words(caption, language) for caption in captions]
        named = None
        if finder is not None and found is not None:
            named = list(map(finder.named, tokens, found))
        encoded = embed(captions, clip)
        return named, reference_free_scores(feats, encoded, tokens, known, found, named)

    rows = sample(np.arange(len(photos)), MAX_IMAGES)
    result = PhotoResults(measure(photos, rows, "photos"))
    if len(rows) < FEW_PHOTOS:
        notes.append(f"There are only {len(rows)} photos, so the figures about them are uncertain.")
    result.num_skipped = num_skipped
    if train.has_images:
        pairs = load_pairs(train, dataset.get("pairs"))
        generated = generated_images(train)
        result.uses_photos = not np.isin(pairs.image, generated).all()
        if not len(generated):
            notes.append(
                "Captions are assigned to photos alone, so there are no synthetic training images "
                "to compare photos with."
            )
    if train.has_images and len(generated):
        # As many as photos: some scores depend on the number of images.
        rows = sample(generated, len(result.photos.rows))
        synthetic = measure(train, rows, "synthetic images")
        result.synthetic = synthetic
        own = [train.captions(i)[0] for i in rows]
        _, result.training_scores = score(synthetic.feats, own, synthetic.found)
        result.gap = domain_gap(synthetic.feats, result.photos.feats)
    if result.photos.found is not None:
        result.concepts = compare_concepts(
            result.photos.found,
            None if result.synthetic is None else result.synthetic.found,
            result.photos.named,
            None if finder is None else name_found(finder, result.photos.found, training),
        )
    return result


def sample(rows: np.ndarray, count: int) -> list[int]:
    """Return at most ``count`` rows, drawn at random and always alike, in order."""
    if len(rows) > count:
        rows = np.random.default_rng(0).choice(rows, count, replace=False)
    return np.sort(rows).tolist()


@torch.inference_mode()
def caption_rows(
    model: Any, store: FeatureStore, rows: Sequence[int], features: str, title: str
) -> list[str]:
    """Caption images of a store."""
    dataset = SynthCaptionDataset(store.path, test_mode=True, features=features)
    captions: list[str] = []
    for start in tqdm(range(0, len(rows), _BATCH), desc=f"captions of {title}", unit="batch"):
        batch = default_collate(dataset.__getitems__(rows[start : start + _BATCH]))
        captions += [sample.pred_caption for sample in model.test_step(batch)]
    return captions


@torch.inference_mode()
def embed(captions: list[str], clip: OpenCLIPBackbone) -> Tensor:
    """Embed captions for CLIPScore."""
    return embed_texts(captions, clip).cpu()


def find_in_images(feats: Tensor, concepts: ConceptSet) -> list[list[str]]:
    """Return the concepts that CLIP finds in images, most probable first."""
    count = min(TOP_CONCEPTS, len(concepts.words))
    ids, probs, _ = retrieve_concepts(feats, concepts.embeddings, count, 0.0, TEMPERATURE)
    return [
        [concepts.words[i] for i, p in zip(*row, strict=True) if p > MIN_PROBABILITY]
        for row in zip(ids.tolist(), probs.tolist(), strict=True)
    ]


def choose_language(cfg: Config, requested: str | None, notes: list[str]) -> str:
    """Return the language of the captions: ``--language``, or that of the metric of the config.

    A remark that it is unknown is appended to ``notes``.
    """
    loops = ("test", "val")
    if requested is None and not any(caption_metric_settings(cfg, loop) for loop in loops):
        notes.append(
            "The config has no CaptionMetric, so captions are tokenized as English. Pass another "
            "language with --language."
        )
    return requested or captions_language(cfg, loops)


def find_in_captions(
    concepts: ConceptSet | None,
    training: list[list[str]],
    language: str,
    notes: list[str],
) -> ConceptFinder | None:
    """Return a finder of concepts in captions; None if they cannot be found.

    Args:
        concepts: Concepts of the captioner; None if it has none.
        training: Tokens of training captions.
        language: Their language.
        notes: Remarks about what counts, which are appended.
    """
    if concepts is None:
        notes.append("The captioner has no concepts, so none are counted.")
        return None
    finder = ConceptFinder(concepts.words, language)
    if finder.share(training) < MIN_NAMING:
        notes.append(
            f"Fewer than {MIN_NAMING:g} % of the training captions (language {language}) name a "
            "concept of the captioner, so concepts are probably words of another language and are "
            "not counted in captions."
        )
        return None
    if not is_english(language):
        reason = "in inflected forms they are not found"
        if is_by_character(language):
            reason = "they may be parts of longer words there"
        notes.append(f"Concepts are counted in captions as they are written; {reason}.")
    return finder


def name_found(
    finder: ConceptFinder, found: list[list[str]], training: list[list[str]]
) -> list[list[str]]:
    """Return the concepts of images that each training caption names."""
    words = list(dict.fromkeys(word for words in found for word in words))
    return [finder.named(tokens, words) for tokens in training]


def _without_type(dataset: Any) -> dict[str, Any]:
    return {key: value for key, value in dataset.items() if key != "type"}
