"""Data of one captioned image, as contact sheets and pages show it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from pcm_plugin.structures import DataSample

# Palette of Okabe and Ito without black and yellow. It is safe for color-blind readers.
_COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class SheetEntry:
    """A captioned image.

    Attributes:
        image: The image. Drawings show what CLIP sees: the largest centered square.
        caption: Predicted caption.
        references: Reference captions, if any.
        concepts: Predicted concepts and their probabilities, most likely first.
        patches: Mixed patches: index in the grid, in row-major order, and the concept with the
            highest affinity.
        title: Name of the image.
    """

    image: Image.Image
    caption: str
    references: Sequence[str] = ()
    concepts: Sequence[tuple[str, float]] = ()
    patches: Sequence[tuple[int, str]] = ()
    title: str = ""


def concept_colors(entry: SheetEntry) -> dict[str, str]:
    """Return the color of each concept of an image, as ``#rrggbb``."""
    names = [name for name, _ in entry.concepts] + [name for _, name in entry.patches]
    return {name: _COLORS[i % len(_COLORS)] for i, name in enumerate(dict.fromkeys(names))}


def mixed_patches(
    concept_ids: Tensor, concept_probs: Tensor, affinity: Tensor, selected: Tensor, words: list[str]
) -> tuple[list[tuple[str, float]], list[tuple[int, str]]]:
    """Translate the mix-up of one image to words.

    Args:
        concept_ids: (K,) int, indices of the predicted concepts.
        concept_probs: (K,) float, their probabilities.
        affinity: (N, K) float, cosine of each patch and each predicted concept.
        selected: (N,) bool, the mixed patches.
        words: Words of all concepts.

    Returns:
        ``concepts`` and ``patches`` of a :class:`SheetEntry`.
    """
    names = [words[i] for i in concept_ids.tolist()]
    nearest = affinity.argmax(-1).tolist()
    patches = [(i, names[nearest[i]]) for i in selected.nonzero().flatten().tolist()]
    return list(zip(names, concept_probs.tolist(), strict=True)), patches


def concepts_of_sample(
    sample: DataSample, words: list[str]
) -> tuple[list[tuple[str, float]], list[tuple[int, str]]]:
    """Translate the mix-up recorded in a data sample to words.

    Args:
        sample: Data sample of ``PCMNet.predict``. Without ``pred_concept_ids`` there are no
            concepts, without ``pred_affinity`` no patches.
        words: Words of all concepts.

    Returns:
        ``concepts`` and ``patches`` of a :class:`SheetEntry`.
    """
    if "pred_concept_ids" not in sample:
        return [], []
    if "pred_affinity" not in sample:
        names = [words[i] for i in sample.pred_concept_ids.tolist()]
        return list(zip(names, sample.pred_concept_probs.tolist(), strict=True)), []
    selected = torch.zeros(len(sample.pred_affinity), dtype=torch.bool)
    selected[sample.pred_selected_patches] = True
    return mixed_patches(
        sample.pred_concept_ids, sample.pred_concept_probs, sample.pred_affinity, selected, words
    )
