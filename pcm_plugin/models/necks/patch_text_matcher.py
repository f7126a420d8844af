"""Match patches of an image with texts of its concepts (paper, Eqs. 1 to 3)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.mix import (
    gather_slots,
    pack_slots,
    shuffle_patches,
    shuffle_slots,
)
from pcm_plugin.models.functional.patch_affinity import patch_concept_affinity, text_map
from pcm_plugin.models.necks.clip_head import ClipHead
from pcm_plugin.models.necks.concept_bank import ConceptBank
from pcm_plugin.models.necks.patch_selection import PatchSelection

CONTROLS = ("none", "random_patches", "random_concepts")


class PatchTextMatch(NamedTuple):
    """Texts for selected patches of B images with K concepts each.

    Attributes:
        ids: (B, K) int64, concepts by falling probability.
        probs: (B, K) float32, their probabilities among all concepts.
        affinity: (B, N, K) float32, cosine similarity of each patch with each concept.
        selected: (B, N) bool, the selected patches.
        slots: (B, M) int64, the patch of each text slot, ascending; -1 where unused.
        text: (B, M, Dc) float32, the text of each slot; meaningless where unused.
    """

    ids: Tensor
    probs: Tensor
    affinity: Tensor
    selected: Tensor
    slots: Tensor
    text: Tensor


class PatchTextMatcher(nn.Module):
    """Finds the concepts of an image, the patches that show them, and a text for each patch.

    Nothing in it is trained.

    Args:
        num_patches: Number N of patches per image.
        patch_dim: Patch width Dv.
        concepts: The concepts.
        clip_head: Maps patches into the joint space. None if they are in it already, as those of a
            CLIP without a linear head such as SigLIP.
        selection: Rule that selects patches.
        concept_threshold: Concepts whose probability does not exceed this are masked. Defaults to
            0.0, as in the released code.
        temperature: Temperature of all softmaxes. Defaults to 0.01.
        control: Control experiment, in training and at inference: ``'random_patches'`` gives the
            texts, in random order, to as many patches chosen at random; ``'random_concepts'``
            replaces the concepts of the texts by others, chosen at random for each image. Captions
            then depend on the state of torch's random generator. Defaults to ``'none'``.

    Raises:
        UserError: If the rule selects more patches or pairs than there are, or the control is
            unknown.
    """

    def __init__(
        self,
        num_patches: int,
        patch_dim: int,
        concepts: ConceptBank,
        clip_head: ClipHead | None,
        selection: PatchSelection,
        concept_threshold: float = 0.0,
        temperature: float = 0.01,
        control: str = "none",
    ) -> None:
        super().__init__()
        if control not in CONTROLS:
            raise UserError(f"`control` must be one of {CONTROLS}, got `{control!r}`")
        selection.check_sizes(num_patches, concepts.top_concepts)
        self.num_patches = num_patches
        self.patch_dim = patch_dim
        self.concepts = concepts
        self.clip_head = clip_head
        self.selection = selection
        self.concept_threshold = concept_threshold
        self.temperature = temperature
        self.control = control

    @property
    def needs_clip_head(self) -> bool:
        """Whether the weights of CLIP's image head are missing."""
        return self.clip_head is not None and not self.clip_head.is_set

    @torch.no_grad()
    def forward(self, patch_feats: Tensor, global_feats: Tensor) -> PatchTextMatch:
        """Match patches with texts.

        Args:
            patch_feats: (B, N, Dv) float32, CLIP's last hidden states before ``ln_post``, or,
                without a CLIP head, patches in the joint space.
            global_feats: (B, Dc) of any floating type, CLIP image embeddings with any norm except
                0.

        Raises:
            UserError: If concepts or the CLIP head are missing.
        """
        self.concepts.check_not_empty("the patch-text matcher")
        if self.needs_clip_head:
            raise UserError(
                "the patch-text matcher has no CLIP head: set `clip_head` to the "
                "clip_head.safetensors of a feature store (`pcm extract` writes it), load a "
                "checkpoint, or call set_clip_head()"
            )
        ids, probs, concepts = self.concepts.retrieve(
            global_feats, self.concept_threshold, self.temperature
        )
        local_feats = patch_feats if self.clip_head is None else self.clip_head(patch_feats)
        affinity = patch_concept_affinity(local_feats, concepts)  # (B, N, K)
        is_kept = probs > self.concept_threshold  # (B, K), False for masked concepts
        selected, pairs = self.selection.select(
            affinity, is_kept, self.temperature, self.training
        )  # (B, N), (B, N, K) or None
        num_slots = self.selection.num_slots(self.num_patches, self.concepts.top_concepts)
        slots = pack_slots(selected, num_slots)  # (B, M)
        slot_affinity = gather_slots(affinity, slots)  # (B, M, K)
        slot_pairs = None if pairs is None else gather_slots(pairs, slots)  # (B, M, K)
        if self.control == "random_concepts":
            concepts = self.concepts.draw_others(ids) * is_kept.unsqueeze(-1)  # (B, K, Dc)
        text = text_map(slot_affinity, concepts, self.temperature, slot_pairs)  # (B, M, Dc)
        if self.control == "random_patches":
            selected = shuffle_patches(selected)
            slots = pack_slots(selected, num_slots)
            text = shuffle_slots(text, slots)
        return PatchTextMatch(ids, probs, affinity, selected, slots, text)
