"""PCMMixup: patches of an image mixed with the texts of its concepts (paper, Sec. 3.2)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from pcm_plugin.models.functional.affinity import patch_concept_affinity, project_patches, text_map
from pcm_plugin.models.functional.concepts import inject_noise, retrieve_concepts
from pcm_plugin.models.functional.mix import (
    gather_slots,
    num_top_pairs,
    pack_slots,
    replace_selected,
    select_top_patches,
)
from pcm_plugin.models.layers import Dropout
from pcm_plugin.models.necks.clip_head import CLIP_HEAD_KEYS, load_clip_head
from pcm_plugin.models.necks.output import MixupOutput
from pcm_plugin.registry import MODELS
from pcm_plugin.synthesis.concepts import load_concepts

MIXES = ("top", "random", "none")


class _Found(NamedTuple):
    ids: Tensor
    probs: Tensor
    affinity: Tensor
    selected: Tensor
    slots: Tensor
    text: Tensor


@MODELS.register_module()
class PCMMixup(BaseModule):
    """Patch-wise cross-modal feature mix-up.

    From an image's global feature come its concepts, from its patches their affinity with those
    concepts. In training the patches of highest affinity are *replaced* by texts, so that the
    captioner learns to read texts where a synthetic image may be wrong; at inference nothing is
    lost: the same texts are *appended* to all patches.

    The released code appends N text slots and masks those not selected. Masked slots reach
    nothing, so here only the selected ones are made, packed into at most M slots.

    Every parameter has a gradient in training whatever ``mix`` is, so that DDP needs no
    ``find_unused_parameters``.

    Args:
        patch_dim: Patch width Dv: 768 for ViT-B/32, 1024 for ViT-L/14.
        clip_dim: Width Dc of CLIP's joint space: 512 and 768.
        embed_dims: Model width D. Defaults to 512.
        num_patches: N. Defaults to 49, ViT-B/32 at 224 pixels; 64 for ViT-L/14 pooled 2x2.
        concepts: Concept file, as ``tools/build_concepts.py`` writes it. Defaults to None: call
            :meth:`set_concepts` before the first image. Concepts are not part of a checkpoint:
            another domain may bring its own.
        clip_head: ``clip_head.safetensors`` of the CLIP that made the features. Defaults to None:
            it comes with a checkpoint, or call :meth:`set_clip_head`. Never trained.
        top_concepts: K. Defaults to 5.
        top_patches: With ``mix='top'`` the M best patch-concept pairs, or below 1 their share of
            N * K; with ``mix='random'`` the share of patches replaced. Defaults to 5.
        concept_threshold: Concepts not above this probability are masked. Defaults to 0.0, as
            released.
        temperature: Of all softmaxes. Defaults to 0.01.
        mix: ``'top'``; ``'random'``, in which training replaces random patches and inference
            appends all texts (released variant); or ``'none'``, the base model of the paper's
            ablation, without concepts. Defaults to ``'top'``.
        noise_var: Variance of the Gaussian noise on the global feature in training. Defaults to
            0.016.
        dropout: Of the tokens. Defaults to 0.5.
        append_texts: Whether inference appends the texts. Without them a trained captioner shows
            what they bring. Defaults to True.
        clip_head_eps: Of CLIP's ``ln_post``. Defaults to 1e-5.
        init_cfg: MMEngine's initialisation config. Defaults to None: PyTorch's own, as released.

    Raises:
        ValueError: If ``mix`` or ``top_patches`` is out of range, or the files have other sizes.
        FileNotFoundError: If a named file is missing.
    """

    def __init__(
        self,
        patch_dim: int,
        clip_dim: int,
        embed_dims: int = 512,
        num_patches: int = 49,
        concepts: str | os.PathLike | None = None,
        clip_head: str | os.PathLike | None = None,
        top_concepts: int = 5,
        top_patches: float = 5,
        concept_threshold: float = 0.0,
        temperature: float = 0.01,
        mix: str = "top",
        noise_var: float = 0.016,
        dropout: float = 0.5,
        append_texts: bool = True,
        clip_head_eps: float = 1e-5,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if mix not in MIXES:
            raise ValueError(f"mix={mix!r}: choose one of {MIXES}")
        if mix == "random" and not 0 < top_patches <= 1:
            raise ValueError(
                f"top_patches={top_patches} with mix='random': give the share of patches to "
                "replace, above 0 and up to 1"
            )
        if mix == "top":
            self.num_pairs = num_top_pairs(top_patches, num_patches, top_concepts)
        self.sizes = (num_patches, patch_dim)
        self.embed_dims = embed_dims
        self.clip_dim = clip_dim
        self.top_concepts = top_concepts
        self.top_patches = top_patches
        self.concept_threshold = concept_threshold
        self.temperature = temperature
        self.mix = mix
        self.append_texts = append_texts
        self.noise_var = noise_var
        self.clip_head_eps = clip_head_eps

        self.global_proj = nn.Linear(clip_dim, embed_dims)
        self.patch_proj = nn.Linear(patch_dim, embed_dims)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, embed_dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.norm = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)
        if mix == "none":
            return
        self.text_proj = nn.Linear(clip_dim, embed_dims)
        self.type_embed = nn.Embedding(2, embed_dims)
        self.clip_ln_weight: Tensor
        self.clip_ln_bias: Tensor
        self.clip_proj: Tensor
        self.register_buffer("clip_ln_weight", torch.ones(patch_dim))
        self.register_buffer("clip_ln_bias", torch.zeros(patch_dim))
        self.register_buffer("clip_proj", torch.zeros(patch_dim, clip_dim))
        self._has_clip_head = False
        if clip_head is not None:
            self.set_clip_head(load_clip_head(clip_head))
        self.concept_words: list[str] = []
        self.concepts: Tensor
        self.register_buffer("concepts", torch.zeros(0, clip_dim), persistent=False)
        if concepts is not None:
            self.set_concepts(*load_concepts(concepts)[:2])

    @property
    def needs_clip_head(self) -> bool:
        """Whether CLIP's image head is still to come."""
        return self.mix != "none" and not self._has_clip_head

    def set_concepts(self, words: Sequence[str], embeddings: Tensor) -> None:
        """Give the concepts to look for.

        Args:
            words: C words.
            embeddings: (C, Dc), their CLIP text embeddings, of any length but 0; normalised into a
                copy.

        Raises:
            ValueError: If the sizes do not agree with each other or with the neck.
        """
        if embeddings.shape != (len(words), self.clip_dim):
            raise ValueError(
                f"concept embeddings are {tuple(embeddings.shape)} but {len(words)} words and "
                f"clip_dim={self.clip_dim} need {(len(words), self.clip_dim)}: "
                "make them with the CLIP that made the features"
            )
        if len(words) < self.top_concepts:
            raise ValueError(
                f"{len(words)} concepts but top_concepts={self.top_concepts}: "
                "give more concepts or lower it"
            )
        self.concept_words = list(words)
        directions = F.normalize(embeddings.detach().float(), dim=-1)
        self.concepts = directions.to(self.pos_embed.device)

    def set_clip_head(self, head: Mapping[str, Tensor]) -> None:
        """Give CLIP's image head.

        Args:
            head: ``ln_post.weight`` (Dv,), ``ln_post.bias`` (Dv,) and ``proj`` (Dv, Dc); copied.

        Raises:
            ValueError: If the sizes are not the neck's.
        """
        buffers = (self.clip_ln_weight, self.clip_ln_bias, self.clip_proj)
        for key, buffer in zip(CLIP_HEAD_KEYS, buffers, strict=True):
            if head[key].shape != buffer.shape:
                raise ValueError(
                    f"{key} of the CLIP head is {tuple(head[key].shape)} but patch_dim="
                    f"{self.sizes[1]} and clip_dim={self.clip_dim} need {tuple(buffer.shape)}"
                )
            buffer.copy_(head[key])
        self._has_clip_head = True

    def forward(self, patch_feats: Tensor | None, global_feats: Tensor) -> MixupOutput:
        """Make a captioner's tokens.

        Args:
            patch_feats: (B, N, Dv) of any floating type, CLIP's last hidden states before
                ``ln_post``.
            global_feats: (B, Dc) of any floating type, CLIP's image embedding, of any length.

        Returns:
            1 + N tokens in training; 1 + N + M at inference, if texts are appended, fewer of them
            valid.

        Raises:
            ValueError: If the features have other sizes than the neck.
            RuntimeError: If there are no concepts or no CLIP head yet.
        """
        patch_feats = self._checked(patch_feats, global_feats).float()
        noise_var = self.noise_var if self.training else 0.0
        global_token = self.global_proj(inject_noise(global_feats.float(), noise_var)).unsqueeze(1)
        patches = self.patch_proj(patch_feats)
        valid = torch.ones(len(patches), 1 + self.sizes[0], dtype=torch.bool, device=patches.device)
        if self.mix == "none":
            tokens = torch.cat([global_token, patches], dim=1) + self.pos_embed
            return MixupOutput(self._finish(tokens), valid)

        found = self._find(patch_feats, global_feats)
        text = self.text_proj(found.text)
        if self.training:
            # Paper, Sec. 3.2: the mixed sequence replaces patches, so that it has no new tokens.
            patches = replace_selected(patches, text, found.selected)
            types = self.type_embed(F.pad(found.selected, (1, 0)).long())
            tokens = torch.cat([global_token, patches], dim=1) + self.pos_embed + types
        else:
            visual_type, text_type = self.type_embed.weight
            # Paper, Sec. 3.2: real images keep their patches; texts are appended, each at the
            # position of the patch that it describes.
            tokens = torch.cat([global_token, patches], dim=1) + self.pos_embed + visual_type
            if self.append_texts:
                positions = self.pos_embed[0, 1 + found.slots.clamp(min=0)]
                tokens = torch.cat([tokens, text + positions + text_type], dim=1)
                valid = torch.cat([valid, found.slots >= 0], dim=1)
        return MixupOutput(
            self._finish(tokens),
            valid,
            found.ids,
            found.probs,
            found.affinity,
            found.selected,
            found.slots,
        )

    @torch.no_grad()
    def _find(self, patch_feats: Tensor, global_feats: Tensor) -> _Found:
        ids, probs, concepts = retrieve_concepts(
            global_feats, self.concepts, self.top_concepts, self.concept_threshold, self.temperature
        )
        local = project_patches(
            patch_feats, self.clip_ln_weight, self.clip_ln_bias, self.clip_proj, self.clip_head_eps
        )
        affinity = patch_concept_affinity(local, concepts)
        num_slots = self.sizes[0]
        if self.mix == "top":
            selected = select_top_patches(affinity, self.num_pairs, self.temperature)
            num_slots = min(self.num_pairs, num_slots)
        else:
            share = self.top_patches if self.training else 1.0
            selected = torch.rand(affinity.shape[:2], device=affinity.device) < share
        slots = pack_slots(selected, num_slots)
        text = text_map(gather_slots(affinity, slots), concepts, self.temperature)
        return _Found(ids, probs, affinity, selected, slots, text)

    def _finish(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.norm(F.relu(tokens)))

    def _checked(self, patch_feats: Tensor | None, global_feats: Tensor) -> Tensor:
        if patch_feats is None or patch_feats.shape[1:] != self.sizes:
            shape = None if patch_feats is None else tuple(patch_feats.shape)
            raise ValueError(
                f"patch_feats are {shape} but the neck was built for (B, num_patches="
                f"{self.sizes[0]}, patch_dim={self.sizes[1]}): set these to the features' sizes"
            )
        if global_feats.shape[1:] != (self.clip_dim,):
            raise ValueError(
                f"global_feats are {tuple(global_feats.shape)} but the neck was built for "
                f"(B, clip_dim={self.clip_dim}): set it to the features' size"
            )
        if self.mix != "none" and not len(self.concepts):
            raise RuntimeError(
                "PCMMixup has no concepts: name a file in concepts=... (tools/build_concepts.py "
                "makes one) or call set_concepts()"
            )
        if self.needs_clip_head:
            raise RuntimeError(
                "PCMMixup has no CLIP head: name a file in clip_head=... (tools/extract.py writes "
                "one into every feature store), load a checkpoint, or call set_clip_head()"
            )
        return patch_feats

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}clip_proj" in state_dict:
            self._has_clip_head = True
