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

from pcm_plugin.commands.photo_store import find_concepts, open_photos, write_statistics
from pcm_plugin.datasets import SynthCaptionDataset
from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.clip_score import embed_texts
from pcm_plugin.evaluation.domain_gap import DomainGap, domain_gap
from pcm_plugin.evaluation.reference_free import (
    concept_shares,
    frequent_only_in,
    named_concepts,
    normalized,
    reference_free_scores,
)
from pcm_plugin.formats.concept_set import ConceptSet
from pcm_plugin.formats.feature_store import FeatureStore
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
        scores: Scores of the captions.
    """

    store: FeatureStore
    rows: list[int]
    feats: Tensor
    captions: list[str]
    found: list[list[str]] | None
    scores: dict[str, float]


@dataclass
class PhotoResults:
    """Everything that the page shows about photos.

    Attributes:
        photos: The photos.
        synthetic: Synthetic images of the training; None without them.
        training_scores: Scores of the training captions of the synthetic images.
        gap: Gap between synthetic images (first) and photos.
        rare_in_captions: Concepts frequent in photos and rare in training captions, with both
            percentages.
        uses_photos: Whether training captions are assigned to images without captions.
        num_skipped: Photos that could not be read.
    """

    photos: ImageSet
    synthetic: ImageSet | None = None
    training_scores: dict[str, float] = field(default_factory=dict)
    gap: DomainGap | None = None
    rare_in_captions: list[tuple[str, float, float]] = field(default_factory=list)
    uses_photos: bool = False
    num_skipped: int = 0

    @property
    def missing_concepts(self) -> list[str]:
        """Concepts that photos show and the training does not.

        They are rare in training captions and in synthetic images: CLIP may find a concept where it
        is not, but then it finds it in both kinds of images.
        """
        words = [row[0] for row in self.rare_in_captions]
        if self.synthetic is None or self.synthetic.found is None or self.photos.found is None:
            return words
        photos, synthetic = concept_shares(self.photos.found), concept_shares(self.synthetic.found)
        only = {row[0] for row in frequent_only_in(photos, synthetic)}
        return [word for word in words if word in only]


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
    concepts = find_concepts(cfg)
    if concepts is None:
        notes.append("The captioner has no concepts, so none are counted.")
    features = "patch" if dataset.get("features", "patch") == "patch" else "global"
    texts = list(SynthCaptionDataset(**_without_type(dataset)).iter_captions())
    known = {normalized(text) for text in texts}
    clip = OpenCLIPBackbone(**cfg.clip).eval().to(device)

    def measure(store: FeatureStore, rows: list[int], title: str) -> ImageSet:
        captions = caption_rows(model, store, rows, features, title)
        feats = store.read_rows("global_feats", rows)
        found = None if concepts is None else find_in_images(feats, concepts)
        encoded = embed(captions, clip)
        scores = reference_free_scores(feats, encoded, captions, found, known)
        return ImageSet(store, rows, feats, captions, found, scores)

    rows = sample(np.arange(len(photos)), MAX_IMAGES)
    result = PhotoResults(measure(photos, rows, "photos"))
    if len(rows) < FEW_PHOTOS:
        notes.append(f"There are only {len(rows)} photos, so the figures about them are uncertain.")
    result.num_skipped = num_skipped
    if train.has_images:
        pairs = load_pairs(train, dataset.get("pairs"))
        # In a store with a pool of photos, generated images are those with captions.
        is_generated = np.diff(train.caption_offsets) > 0
        result.uses_photos = bool((~is_generated[pairs.image]).any())
        # As many as photos: some scores depend on the number of images.
        rows = sample(np.flatnonzero(is_generated), len(result.photos.rows))
        synthetic = measure(train, rows, "synthetic images")
        result.synthetic = synthetic
        own = [train.captions(i)[0] for i in rows]
        result.training_scores = reference_free_scores(
            synthetic.feats, embed(own, clip), own, synthetic.found, known
        )
        result.gap = domain_gap(synthetic.feats, result.photos.feats)
    if result.photos.found is not None:
        result.rare_in_captions = find_rare(result.photos.found, texts)
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


def find_rare(found: list[list[str]], texts: list[str]) -> list[tuple[str, float, float]]:
    """Return concepts that are frequent in photos and rare in training captions."""
    if len(texts) > MAX_CAPTIONS:
        texts = [texts[i] for i in sample(np.arange(len(texts)), MAX_CAPTIONS)]
    shares = concept_shares(found)
    frequent = [row[0] for row in frequent_only_in(shares, {})]
    return frequent_only_in(shares, concept_shares([named_concepts(t, frequent) for t in texts]))


def _without_type(dataset: Any) -> dict[str, Any]:
    return {key: value for key, value in dataset.items() if key != "type"}
