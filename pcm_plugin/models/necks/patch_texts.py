"""Which texts describe which patches of an image (paper, Eqs. 1 to 3)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.clip_head import CLIP_HEAD_KEYS, load_clip_head
from pcm_plugin.formats.concept_set import load_concepts
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.models.functional.concept_retrieval import prepare_concepts, retrieve_concepts
from pcm_plugin.models.functional.mix import (
    gather_slots,
    num_top_pairs,
    pack_slots,
    select_patches_by_count,
    select_patches_by_pairs,
)
from pcm_plugin.models.functional.patch_affinity import (
    patch_concept_affinity,
    project_patches,
    text_map,
)

MIXES = ("top", "random", "none")


class PatchTextMatch(NamedTuple):
    """Texts for some patches of B images, of K concepts each.

    Attributes:
        ids: (B, K) int64, concepts by falling probability.
        probs: (B, K) float32, their probabilities among all concepts.
        affinity: (B, N, K) float32, cosine of each patch with each concept.
        selected: (B, N) bool, the patches that are described.
        slots: (B, M) int64, the patch of each text, ascending; -1 where unused.
        text: (B, M, Dc) float32, the texts; of no meaning where unused.
    """

    ids: Tensor
    probs: Tensor
    affinity: Tensor
    selected: Tensor
    slots: Tensor
    text: Tensor


class PatchTextMatcher(BaseModule, ReadsFiles):
    """Base of what mixes texts into patches: finds concepts, patches and the texts of these.

    Nothing here is trained. The concepts are not part of a checkpoint, since another domain may
    bring its own; CLIP's image head is.

    Args:
        patch_dim: Width Dv of CLIP's patches.
        clip_dim: Width Dc of the joint space.
        num_patches: N.
        concepts: Concept file. Defaults to None: call :meth:`set_concepts`.
        clip_head: ``clip_head.safetensors``. Defaults to None: it comes with a checkpoint, or call
            :meth:`set_clip_head`.
        top_concepts: K. Defaults to 5.
        top_patches: With ``mix='top'`` the M best patch-concept pairs, or below 1 their share of
            N * K; with ``mix='random'`` the share of patches in training. Defaults to 5.
        distinct: With ``mix='top'``, whether M counts patches instead of pairs: always M are
            selected, those that own the best pairs. Defaults to False, as released.
        concept_threshold: Concepts not above this probability are masked. Defaults to 0.0.
        temperature: Of all softmaxes. Defaults to 0.01.
        mix: ``'top'``, ``'random'`` or ``'none'``. Defaults to ``'top'``.
        ln_post_eps: Of CLIP's ``ln_post``. Defaults to 1e-5.
        patches_in_joint_space: Whether patches come in the joint space already, as those of a CLIP without
            a linear head, such as SigLIP: they are taken as they are, there is no CLIP head.
            Defaults to False.
        init_cfg: MMEngine's initialisation config. Defaults to None.

    Attributes:
        concept_words (list[str]): The words of the concepts.

    Raises:
        UserError: If ``mix`` or ``top_patches`` is out of range, the files have other sizes, or
            ``patches_in_joint_space`` does not go with the widths or a CLIP head.
        MissingFileError: If a named file is missing.
    """

    input_files = {"concepts": FileKind.CONCEPT_SET, "clip_head": FileKind.CLIP_HEAD}

    def __init__(
        self,
        patch_dim: int,
        clip_dim: int,
        num_patches: int,
        concepts: str | os.PathLike | None = None,
        clip_head: str | os.PathLike | None = None,
        top_concepts: int = 5,
        top_patches: float = 5,
        distinct: bool = False,
        concept_threshold: float = 0.0,
        temperature: float = 0.01,
        mix: str = "top",
        ln_post_eps: float = 1e-5,
        patches_in_joint_space: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if mix not in MIXES:
            raise UserError(f"mix={mix!r}: choose one of {MIXES}")
        if mix == "random" and not 0 < top_patches <= 1:
            raise UserError(
                f"top_patches={top_patches} with mix='random': give the share of patches to "
                "replace, above 0 and up to 1"
            )
        if patches_in_joint_space and patch_dim != clip_dim:
            raise UserError(
                f"patches_in_joint_space=True with patch_dim={patch_dim} and clip_dim={clip_dim}: patches "
                "in the joint space are as wide as it; set both to the features' sizes"
            )
        if patches_in_joint_space and clip_head is not None:
            raise UserError(
                f"patches_in_joint_space=True with clip_head={str(clip_head)!r}: patches that are in the "
                "joint space already need no head; set clip_head=None"
            )
        if mix == "top":
            self.num_best = num_top_pairs(top_patches, num_patches, 1 if distinct else top_concepts)
        self.sizes = (num_patches, patch_dim)
        self.clip_dim = clip_dim
        self.top_concepts = top_concepts
        self.top_patches = top_patches
        self.distinct = distinct
        self.concept_threshold = concept_threshold
        self.temperature = temperature
        self.mix = mix
        self.ln_post_eps = ln_post_eps
        self.patches_in_joint_space = patches_in_joint_space
        self.concept_words: list[str] = []
        if mix == "none":
            return
        self._has_clip_head = False
        if not patches_in_joint_space:
            self.clip_ln_weight: Tensor
            self.clip_ln_bias: Tensor
            self.clip_proj: Tensor
            self.register_buffer("clip_ln_weight", torch.ones(patch_dim))
            self.register_buffer("clip_ln_bias", torch.zeros(patch_dim))
            self.register_buffer("clip_proj", torch.zeros(patch_dim, clip_dim))
        if clip_head is not None:
            self.set_clip_head(load_clip_head(clip_head))
        self.concepts: Tensor
        self.register_buffer("concepts", torch.zeros(0, clip_dim), persistent=False)
        if concepts is not None:
            self.set_concepts(*load_concepts(concepts)[:2])

    @property
    def needs_clip_head(self) -> bool:
        """Whether CLIP's image head is still to come."""
        return self.mix != "none" and not self.patches_in_joint_space and not self._has_clip_head

    def set_concepts(self, words: Sequence[str], embeddings: Tensor) -> None:
        """Give the concepts to look for.

        Args:
            words: C words.
            embeddings: (C, Dc), their CLIP text embeddings, of any length but 0; normalised into a
                copy.

        Raises:
            UserError: If the sizes do not agree with each other or with the neck, or nothing is
                mixed.
        """
        if self.mix == "none":
            raise UserError("mix='none' looks for no concepts: drop them, or choose another mix")
        found = prepare_concepts(words, embeddings, self.clip_dim, self.top_concepts)
        self.concepts = found.to(self.concepts.device)
        self.concept_words = list(words)

    def set_clip_head(self, head: Mapping[str, Tensor]) -> None:
        """Give CLIP's image head.

        Args:
            head: ``ln_post.weight`` (Dv,), ``ln_post.bias`` (Dv,) and ``proj`` (Dv, Dc); copied.

        Raises:
            UserError: If the sizes are not the neck's, or its patches need no head.
        """
        if self.patches_in_joint_space:
            raise UserError(
                "patches_in_joint_space=True needs no CLIP head: drop it, or patches_in_joint_space"
            )
        buffers = (self.clip_ln_weight, self.clip_ln_bias, self.clip_proj)
        for key, buffer in zip(CLIP_HEAD_KEYS, buffers, strict=True):
            if head[key].shape != buffer.shape:
                raise UserError(
                    f"{key} of the CLIP head is {tuple(head[key].shape)} but patch_dim="
                    f"{self.sizes[1]} and clip_dim={self.clip_dim} need {tuple(buffer.shape)}"
                )
            buffer.copy_(head[key])
        self._has_clip_head = True

    def to_joint_space(self, patch_feats: Tensor) -> Tensor:
        """Lead patches into CLIP's joint space, unless they are there.

        Args:
            patch_feats: (B, N, Dv) float32.

        Returns:
            (B, N, Dc) float32, of any length.
        """
        if self.patches_in_joint_space:
            return patch_feats
        head = (self.clip_ln_weight, self.clip_ln_bias, self.clip_proj)
        return project_patches(patch_feats, *head, self.ln_post_eps)

    @torch.no_grad()
    def find(self, patch_feats: Tensor, global_feats: Tensor) -> PatchTextMatch:
        """Find the texts.

        Args:
            patch_feats: (B, N, Dv) float32, CLIP's last hidden states before ``ln_post``, or, with
                ``patches_in_joint_space``, patches in the joint space.
            global_feats: (B, Dc) of any floating type, CLIP's image embedding, of any length.
        """
        ids, probs, concepts = retrieve_concepts(
            global_feats, self.concepts, self.top_concepts, self.concept_threshold, self.temperature
        )
        affinity = patch_concept_affinity(self.to_joint_space(patch_feats), concepts)
        num_slots = self.sizes[0]
        if self.mix == "top":
            if self.distinct:
                selected = select_patches_by_count(affinity, self.num_best)
            else:
                selected = select_patches_by_pairs(affinity, self.num_best, self.temperature)
            num_slots = min(self.num_best, num_slots)
        else:
            share = self.top_patches if self.training else 1.0
            selected = torch.rand(affinity.shape[:2], device=affinity.device) < share
        slots = pack_slots(selected, num_slots)
        text = text_map(gather_slots(affinity, slots), concepts, self.temperature)
        return PatchTextMatch(ids, probs, affinity, selected, slots, text)

    def check_features(self, patch_feats: Tensor | None, global_feats: Tensor) -> Tensor:
        """The patch features, if they and all that is needed to describe them are there.

        Args:
            patch_feats: (B, N, Dv).
            global_feats: (B, Dc).

        Raises:
            UserError: If the features have other sizes than the neck, or there are no concepts or
                no CLIP head yet.
        """
        name = type(self).__name__
        if patch_feats is None or patch_feats.shape[1:] != self.sizes:
            shape = None if patch_feats is None else tuple(patch_feats.shape)
            raise UserError(
                f"patch_feats are {shape} but {name} was built for (B, num_patches="
                f"{self.sizes[0]}, patch_dim={self.sizes[1]}): set these to the features' sizes"
            )
        if global_feats.shape[1:] != (self.clip_dim,):
            raise UserError(
                f"global_feats are {tuple(global_feats.shape)} but {name} was built for "
                f"(B, clip_dim={self.clip_dim}): set it to the features' size"
            )
        if self.mix != "none" and not len(self.concepts):
            raise UserError(
                f"{name} has no concepts: name a file in concepts=... (tools/build_concepts.py "
                "makes one) or call set_concepts()"
            )
        if self.needs_clip_head:
            raise UserError(
                f"{name} has no CLIP head: name a file in clip_head=... (tools/extract.py writes "
                "one into every feature store), load a checkpoint, or call set_clip_head()"
            )
        return patch_feats

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}clip_proj" in state_dict:
            self._has_clip_head = True
