"""Selection of the patches that are mixed with text."""

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.mix import (
    select_pairs_per_concept,
    select_patches_by_count,
    select_patches_by_pairs,
)

SELECTIONS = ("top_pairs", "per_concept", "top_patches", "random", "none")


class SelectedPatches(NamedTuple):
    """Selected patches of B images.

    Attributes:
        patches: (B, N) bool, True for selected patches.
        pairs: (B, N, K) bool, the concepts that selected each patch; None if all concepts
            describe it.
    """

    patches: Tensor
    pairs: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class PatchSelection:
    """Rule that selects patches by their affinity with concepts.

    Attributes:
        rule: ``'top_pairs'`` selects the patches of the best patch-concept pairs (released code);
            ``'per_concept'`` the best patch of each concept, whose text is that of the concept;
            ``'top_patches'`` the patches with the highest affinity; ``'random'`` random patches in
            training and all patches at inference (variant of the released code); ``'none'`` no
            patches.
        num_pairs: Number of pairs for ``'top_pairs'``. Pairs may share a patch.
        num_top_patches: Number of patches for ``'top_patches'``.
        random_ratio: Share of patches that ``'random'`` selects in training.

    Raises:
        UserError: If the rule is unknown, or ``random_ratio`` is not a share.
    """

    rule: str = "top_pairs"
    num_pairs: int = 5
    num_top_patches: int = 5
    random_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in SELECTIONS:
            raise UserError(f"`selection` must be one of {SELECTIONS}, got `{self.rule!r}`")
        if self.rule == "random" and not 0 < (self.random_ratio or 0) <= 1:
            raise UserError(
                "`random_ratio` must be above 0 and at most 1 with selection='random', got "
                f"`{self.random_ratio}`: pass the share of patches to replace in training"
            )

    def check_sizes(self, num_patches: int, top_concepts: int) -> None:
        """Check that there are as many pairs or patches as the rule selects.

        Args:
            num_patches: Number N of patches per image.
            top_concepts: Number K of concepts per image.

        Raises:
            UserError: If there are fewer.
        """
        if self.rule == "top_pairs":
            name, count, limit = "num_pairs", self.num_pairs, num_patches * top_concepts
        elif self.rule == "top_patches":
            name, count, limit = "num_top_patches", self.num_top_patches, num_patches
        else:
            return
        if not isinstance(count, int) or not 1 <= count <= limit:
            raise UserError(
                f"`{name}` must be a whole number from 1 to {limit} ({num_patches} patches, "
                f"{top_concepts} concepts), got `{count}`"
            )

    def num_slots(self, num_patches: int, top_concepts: int) -> int:
        """Return the maximum number M of selected patches out of N, for K concepts per image."""
        counts = {
            "top_pairs": self.num_pairs,
            "per_concept": top_concepts,
            "top_patches": self.num_top_patches,
            "none": 0,
        }
        return min(counts.get(self.rule, num_patches), num_patches)

    def select(
        self, affinity: Tensor, is_kept: Tensor, temperature: float, training: bool
    ) -> SelectedPatches:
        """Select patches.

        Args:
            affinity: (B, N, K), cosine similarity of each patch with each concept.
            is_kept: (B, K) bool, False for masked concepts.
            temperature: Temperature of the softmax over pairs.
            training: Whether the model is in training mode.

        Returns:
            The selected patches.
        """
        if self.rule == "top_pairs":
            return SelectedPatches(select_patches_by_pairs(affinity, self.num_pairs, temperature))
        if self.rule == "per_concept":
            pairs = select_pairs_per_concept(affinity, is_kept)  # (B, N, K)
            return SelectedPatches(pairs.any(-1), pairs)
        if self.rule == "top_patches":
            return SelectedPatches(select_patches_by_count(affinity, self.num_top_patches))
        ratio = (self.random_ratio or 0.0) if training else 1.0
        noise = torch.rand(affinity.shape[:2], device=affinity.device)  # (B, N)
        return SelectedPatches(noise < ratio)
