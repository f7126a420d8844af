"""PCMMixup: patches of an image mixed with the texts of its concepts (paper, Sec. 3.2)."""

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.models.functional.concept_retrieval import inject_noise
from pcm_plugin.models.functional.mix import replace_patches
from pcm_plugin.models.layers import Dropout
from pcm_plugin.models.necks.output import NeckOutput
from pcm_plugin.models.necks.patch_texts import PatchTextMatcher
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class PCMMixup(PatchTextMatcher):
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
        distinct: Whether M counts patches instead of pairs. Always M are mixed then, no token is
            masked, and a captioner without a mask can take the tokens. Defaults to False, as
            released.
        concept_threshold: Concepts not above this probability are masked. Defaults to 0.0, as
            released.
        temperature: Of all softmaxes. Defaults to 0.01.
        mix: ``'top'``; ``'random'``, in which training replaces random patches and inference
            appends all texts (released variant); or ``'none'``, the base model of the paper's
            ablation, without concepts. Defaults to ``'top'``.
        noise_var: Variance of the Gaussian noise on the global feature in training. Defaults to
            0.016.
        dropout: Of the tokens. Defaults to 0.5.
        append_text_tokens: Whether inference appends the texts. Without them a trained captioner shows
            what they bring. Defaults to True.
        ln_post_eps: Of CLIP's ``ln_post``. Defaults to 1e-5.
        patches_in_joint_space: Whether patches come in the joint space already, as those of a CLIP without
            a linear head, such as SigLIP; ``patch_dim`` equals ``clip_dim`` then, and there is no
            CLIP head. Defaults to False.
        init_cfg: MMEngine's initialisation config. Defaults to None: PyTorch's own, as released.

    Raises:
        UserError: If ``mix`` or ``top_patches`` is out of range, the files have other sizes, or
            ``patches_in_joint_space`` does not go with the widths or a CLIP head.
        MissingFileError: If a named file is missing.
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
        append_text_tokens: bool = True,
        ln_post_eps: float = 1e-5,
        distinct: bool = False,
        patches_in_joint_space: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            patch_dim,
            clip_dim,
            num_patches,
            concepts,
            clip_head,
            top_concepts,
            top_patches,
            distinct,
            concept_threshold,
            temperature,
            mix,
            ln_post_eps,
            patches_in_joint_space,
            init_cfg,
        )
        self.embed_dims = embed_dims
        self.append_text_tokens = append_text_tokens
        self.noise_var = noise_var
        self.global_proj = nn.Linear(clip_dim, embed_dims)
        self.patch_proj = nn.Linear(patch_dim, embed_dims)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, embed_dims))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.norm = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)
        if mix != "none":
            self.text_proj = nn.Linear(clip_dim, embed_dims)
            self.type_embed = nn.Embedding(2, embed_dims)

    def forward(self, patch_feats: Tensor | None, global_feats: Tensor) -> NeckOutput:
        """Make a captioner's tokens.

        Args:
            patch_feats: (B, N, Dv) of any floating type, CLIP's last hidden states before
                ``ln_post``, or, with ``patches_in_joint_space``, patches in the joint space.
            global_feats: (B, Dc) of any floating type, CLIP's image embedding, of any length.

        Returns:
            1 + N tokens in training; 1 + N + M at inference, if texts are appended, fewer of them
            valid.

        Raises:
            UserError: If the features have other sizes than the neck, or there are no concepts or
                no CLIP head yet.
        """
        patch_feats = self.check_features(patch_feats, global_feats).float()
        noise_var = self.noise_var if self.training else 0.0
        global_token = self.global_proj(inject_noise(global_feats.float(), noise_var)).unsqueeze(1)
        patches = self.patch_proj(patch_feats)
        valid = torch.ones(len(patches), 1 + self.sizes[0], dtype=torch.bool, device=patches.device)
        if self.mix == "none":
            tokens = torch.cat([global_token, patches], dim=1) + self.pos_embed
            return NeckOutput(self._finish(tokens), valid)

        found = self.find(patch_feats, global_feats)
        text = self.text_proj(found.text)
        if self.training:
            # Paper, Sec. 3.2: the mixed sequence replaces patches, so that it has no new tokens.
            patches = replace_patches(patches, text, found.selected)
            types = self.type_embed(F.pad(found.selected, (1, 0)).long())
            tokens = torch.cat([global_token, patches], dim=1) + self.pos_embed + types
        else:
            visual_type, text_type = self.type_embed.weight
            # Paper, Sec. 3.2: real images keep their patches; texts are appended, each at the
            # position of the patch that it describes.
            tokens = torch.cat([global_token, patches], dim=1) + self.pos_embed + visual_type
            if self.append_text_tokens:
                positions = self.pos_embed[0, 1 + found.slots.clamp(min=0)]
                tokens = torch.cat([tokens, text + positions + text_type], dim=1)
                valid = torch.cat([valid, found.slots >= 0], dim=1)
        return NeckOutput(
            self._finish(tokens),
            valid,
            found.ids,
            found.probs,
            found.affinity,
            found.selected,
            found.slots,
        )

    def _finish(self, tokens: Tensor) -> Tensor:
        return self.dropout(self.norm(F.relu(tokens)))
