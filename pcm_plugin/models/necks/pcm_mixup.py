"""PCMMixup: mix patches of an image with texts of its concepts (paper, Sec. 3.2)."""

import os
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.models.functional.concept_retrieval import inject_noise
from pcm_plugin.models.functional.mix import replace_patches
from pcm_plugin.models.layers import Dropout
from pcm_plugin.models.necks.base import Neck
from pcm_plugin.models.necks.clip_head import ClipHead
from pcm_plugin.models.necks.concept_bank import ConceptBank
from pcm_plugin.models.necks.output import NeckOutput
from pcm_plugin.models.necks.patch_selection import PatchSelection
from pcm_plugin.models.necks.patch_text_matcher import PatchTextMatch, PatchTextMatcher
from pcm_plugin.registry import MODELS

MIXES = ("replace", "append", "drop")


@MODELS.register_module()
class PCMMixup(Neck):
    """Patch-wise cross-modal feature mix-up.

    The global feature of an image retrieves concepts; each patch has an affinity with each of them.
    In training, the patches with the highest affinity are *replaced* by texts, so that the
    captioner learns to rely on text where a synthetic image may be wrong. At inference, the same
    texts are *appended* to all patches, so that no information is lost. ``mix`` selects other
    trainings.

    The released code appends N text slots and masks those that are not selected. Masked slots do
    not influence the output, so this module creates at most M slots, for the selected patches only.

    Every parameter gets a gradient in training with any ``selection``, so that DDP needs no
    ``find_unused_parameters``.

    Args:
        patch_dim: Patch width Dv: 768 for ViT-B/32, 1024 for ViT-L/14.
        clip_dim: Width Dc of CLIP's joint space: 512 for ViT-B/32, 768 for ViT-L/14.
        embed_dims: Model width D. Defaults to 512.
        num_patches: Number N of patches. Defaults to 49, that of ViT-B/32 at 224 pixels; 64 for
            ViT-L/14 pooled 2x2.
        concepts: Concept file, as ``pcm build-concepts`` writes it. Defaults to None, which
            requires a call of :meth:`.Neck.set_concepts` before the first image. Concepts are not
            part of a checkpoint, since another domain may need others.
        clip_head: ``clip_head.safetensors`` of the CLIP that computed the features. Defaults to
            None: it comes with a checkpoint, or from :meth:`set_clip_head`. It is never trained.
        top_concepts: Number K of concepts per image. Defaults to 5.
        selection: Rule that selects patches, see :class:`.PatchSelection`: ``'top_pairs'`` as in
            the released code; ``'per_concept'``, the best patch of each concept, so that no concept
            is named twice; ``'top_patches'``, with which no token is masked, so that a captioner
            without a mask can use the tokens; ``'random'``; or ``'none'`` for the base model of the
            paper's ablation, without concepts. Defaults to ``'top_pairs'``.
        mix: What training does with the selected patches: ``'replace'`` replaces them by texts;
            ``'append'`` keeps them and appends the texts, as inference does; ``'drop'`` replaces
            them by a learned token and uses no texts, neither in training nor at inference, which
            is the control experiment of patch dropout. Defaults to ``'replace'``, as in the paper.
        control: Other control experiments, see :class:`.PatchTextMatcher`: ``'random_patches'`` or
            ``'random_concepts'``, in training and at inference. Defaults to ``'none'``.
        num_pairs: Number of patch-concept pairs for ``'top_pairs'``. Defaults to 5.
        num_top_patches: Number of patches for ``'top_patches'``. Defaults to 5.
        random_ratio: Share of patches that ``'random'`` replaces in training. Defaults to None.
        concept_threshold: Concepts whose probability does not exceed this are masked. Defaults to
            0.0, as in the released code.
        temperature: Temperature of all softmaxes. Defaults to 0.01.
        noise_var: Variance of the Gaussian noise on the global feature in training. Defaults to
            0.016.
        dropout: Dropout probability of the tokens. Defaults to 0.5.
        append_text_tokens: Whether to append the texts at inference. False measures what they
            contribute to a trained captioner. Defaults to True.
        ln_post_eps: Epsilon of CLIP's ``ln_post``. Defaults to 1e-5.
        patches_in_joint_space: Whether the patches are in the joint space already, as those of a
            CLIP without a linear head such as SigLIP. Then ``patch_dim`` equals ``clip_dim``, and
            there is no CLIP head. Defaults to False.
        init_cfg: MMEngine's initialization config. Defaults to None, PyTorch's initialization, as
            in the released code.

    Attributes:
        matcher (PatchTextMatcher | None): Retrieves concepts and matches patches with texts; None
            with ``selection='none'``.

    Raises:
        UserError: If a setting of the selection is out of range, ``mix`` or ``control`` is unknown
            or has no effect with the other settings, the files have other sizes, or
            ``patches_in_joint_space`` does not match the widths or a CLIP head.
        MissingFileError: If a file is missing.
    """

    input_files = {"concepts": FileKind.CONCEPT_SET, "clip_head": FileKind.CLIP_HEAD}

    def __init__(
        self,
        patch_dim: int,
        clip_dim: int,
        embed_dims: int = 512,
        num_patches: int = 49,
        concepts: str | os.PathLike | None = None,
        clip_head: str | os.PathLike | None = None,
        top_concepts: int = 5,
        selection: str = "top_pairs",
        mix: str = "replace",
        control: str = "none",
        num_pairs: int = 5,
        num_top_patches: int = 5,
        random_ratio: float | None = None,
        concept_threshold: float = 0.0,
        temperature: float = 0.01,
        noise_var: float = 0.016,
        dropout: float = 0.5,
        append_text_tokens: bool = True,
        ln_post_eps: float = 1e-5,
        patches_in_joint_space: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if patches_in_joint_space and patch_dim != clip_dim:
            raise UserError(
                "`patch_dim` must equal `clip_dim` with patches_in_joint_space=True, got "
                f"`{patch_dim}` and `{clip_dim}`: set both to the width of the features"
            )
        if patches_in_joint_space and clip_head is not None:
            raise UserError(
                "`clip_head` must be None with patches_in_joint_space=True, got "
                f"`{str(clip_head)!r}`: such patches need no projection"
            )
        _check_mix(mix, control, selection, append_text_tokens)
        self.patch_dim = patch_dim
        self.clip_dim = clip_dim
        self.embed_dims = embed_dims
        self.num_patches = num_patches
        self.append_text_tokens = append_text_tokens
        self.noise_var = noise_var
        self.mix = mix
        rule = PatchSelection(selection, num_pairs, num_top_patches, random_ratio)
        self.matcher: PatchTextMatcher | None = None
        if selection != "none":
            self.patches_in_joint_space = patches_in_joint_space
            self.matcher = PatchTextMatcher(
                num_patches,
                patch_dim,
                ConceptBank(clip_dim, top_concepts, concepts),
                None
                if patches_in_joint_space
                else ClipHead(patch_dim, clip_dim, ln_post_eps, clip_head),
                rule,
                concept_threshold,
                temperature,
                control,
            )
        self.global_proj = nn.Linear(clip_dim, embed_dims)
        self.patch_proj = nn.Linear(patch_dim, embed_dims)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, embed_dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.norm = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)
        # Created with all settings, so that the initial weights of the other modules of a captioner
        # do not depend on them.
        text_proj, type_embed = nn.Linear(clip_dim, embed_dims), nn.Embedding(2, embed_dims)
        if selection != "none" and mix != "drop":
            self.text_proj, self.type_embed = text_proj, type_embed
        if mix == "drop":
            self.mask_token = nn.Parameter(torch.zeros(embed_dims))

    @property
    def concept_bank(self) -> ConceptBank | None:
        """Concepts of the matcher; None with ``selection='none'``."""
        return None if self.matcher is None else self.matcher.concepts

    @property
    def needs_clip_head(self) -> bool:
        """Whether the weights of CLIP's image head are missing."""
        return self.matcher is not None and self.matcher.needs_clip_head

    def set_clip_head(self, head: Mapping[str, Tensor]) -> None:
        """Set CLIP's image head; see :meth:`.ClipHead.set_tensors`.

        Raises:
            UserError: If the patches need no head, or the shapes do not match.
        """
        if self.matcher is None or self.matcher.clip_head is None:
            super().set_clip_head(head)
            return
        self.matcher.clip_head.set_tensors(head)

    def forward(self, patch_feats: Tensor | None, global_feats: Tensor) -> NeckOutput:
        """Compute the tokens of a captioner.

        Args:
            patch_feats: (B, N, Dv) of any floating type, CLIP's last hidden states before
                ``ln_post``, or, with ``patches_in_joint_space``, patches in the joint space.
            global_feats: (B, Dc) of any floating type, CLIP image embeddings with any norm except
                0.

        Returns:
            1 + N tokens in training; at inference, and with ``mix='append'``, 1 + N + M, where
            unused text slots are masked.

        Raises:
            UserError: If the features have other sizes than the neck, or concepts or the CLIP head
                are missing.
        """
        patch_feats = self._check_feats(patch_feats, global_feats).float()
        noise_var = self.noise_var if self.training else 0.0
        global_token = self.global_proj(inject_noise(global_feats.float(), noise_var))  # (B, D)
        patches = self.patch_proj(patch_feats)  # (B, N, D)
        if self.matcher is None:
            tokens = torch.cat([global_token.unsqueeze(1), patches], dim=1)  # (B, 1 + N, D)
            return NeckOutput(self._norm_act_drop(tokens + self.pos_embed), _all_true(tokens))
        match: PatchTextMatch = self.matcher(patch_feats, global_feats)
        if self.mix == "drop":
            if self.training:
                patches = torch.where(match.selected.unsqueeze(-1), self.mask_token, patches)
            tokens = torch.cat([global_token.unsqueeze(1), patches], dim=1)  # (B, 1 + N, D)
            tokens = self._norm_act_drop(tokens + self.pos_embed)
            return _output(tokens, _all_true(tokens), match)
        text = self.text_proj(match.text)  # (B, M, D)
        if self.training and self.mix == "replace":
            # Paper, Sec. 3.2: texts replace patches, so that the sequence keeps its length.
            patches = replace_patches(patches, text, match.selected)  # (B, N, D)
            types = self.type_embed(F.pad(match.selected, (1, 0)).long())  # (B, 1 + N, D)
            tokens = torch.cat([global_token.unsqueeze(1), patches], dim=1)  # (B, 1 + N, D)
            tokens = tokens + self.pos_embed + types
            mask = _all_true(tokens)
        else:
            # Paper, Sec. 3.2: real images keep all patches. Each text is appended with the position
            # embedding of the patch that it describes.
            visual_type, text_type = self.type_embed.weight  # (D,), (D,)
            tokens = torch.cat([global_token.unsqueeze(1), patches], dim=1)  # (B, 1 + N, D)
            tokens = tokens + self.pos_embed + visual_type
            mask = _all_true(tokens)
            if self.training or self.append_text_tokens:
                positions = self.pos_embed[0, 1 + match.slots.clamp(min=0)]  # (B, M, D)
                text = text + positions + text_type
                tokens = torch.cat([tokens, text], dim=1)  # (B, 1 + N + M, D)
                mask = torch.cat([mask, match.slots >= 0], dim=1)  # (B, 1 + N + M)
        return _output(self._norm_act_drop(tokens), mask, match)

    def _check_feats(self, patch_feats: Tensor | None, global_feats: Tensor) -> Tensor:
        """Return the patch features, after a check of all shapes."""
        sizes = (self.num_patches, self.patch_dim)
        if patch_feats is None or patch_feats.shape[1:] != sizes:
            shape = None if patch_feats is None else tuple(patch_feats.shape)
            raise UserError(
                f"`patch_feats` must be (B, num_patches={sizes[0]}, patch_dim={sizes[1]}), got "
                f"`{shape}`: set num_patches and patch_dim to the sizes of the features"
            )
        if global_feats.shape[1:] != (self.clip_dim,):
            raise UserError(
                f"`global_feats` must be (B, clip_dim={self.clip_dim}), got "
                f"`{tuple(global_feats.shape)}`: set clip_dim to the width of the features"
            )
        return patch_feats

    def _norm_act_drop(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.norm(F.relu(tokens)))


def _check_mix(mix: str, control: str, selection: str, append_text_tokens: bool) -> None:
    if mix not in MIXES:
        raise UserError(f"`mix` must be one of {MIXES}, got `{mix!r}`")
    if selection == "none" and (mix != "replace" or control != "none"):
        name, value = ("mix", mix) if mix != "replace" else ("control", control)
        raise UserError(f"`{name}={value!r}` has no effect with selection='none': omit it")
    if mix == "drop" and control == "random_concepts":
        raise UserError("`control='random_concepts'` has no effect with mix='drop': omit it")
    if mix == "drop" and not append_text_tokens:
        raise UserError("`append_text_tokens=False` has no effect with mix='drop': omit it")


def _output(tokens: Tensor, mask: Tensor, match: PatchTextMatch) -> NeckOutput:
    return NeckOutput(
        tokens, mask, match.ids, match.probs, match.affinity, match.selected, match.slots
    )


def _all_true(tokens: Tensor) -> Tensor:
    """Return a mask (B, L) of tokens (B, L, D) that are all valid."""
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
