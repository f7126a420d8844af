"""The mix-up in the vision slot of another captioner (paper, Sec. 3.2; its Table 3 does so)."""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.building import build_module
from pcm_plugin.models.functional.mix import gather_slots, map_patch_grid, replace_patches
from pcm_plugin.models.necks.patch_texts import PatchTextMatcher
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class MixupVisionEncoder(PatchTextMatcher):
    """A vision encoder whose patches are mixed with the texts of an image's concepts.

    It takes the place of the encoder in a captioner that cross-attends to all of its tokens, such
    as mmpretrain's BLIP and BLIP-2, and needs nothing else of it. The encoder need not be CLIP:
    concepts, and the patches that show them, are found by a CLIP beside it, which sees the same
    pixels; an encoder's patch belongs to the patch of CLIP in which its centre lies.

    As in PCMMixup, training *replaces* the encoder's patches where concepts show, inference
    *appends* the texts. Captioners like these have no mask for image tokens, so M counts patches
    of CLIP here (``distinct``), and every token is valid. Two things are ours, since the encoder's
    tokens are finished features, while PCMMixup's are still to be encoded: a text brings a
    position of its own, which begins at zero; and it is normalised, as finished features are.

    Weights of a captioner whose encoder was not wrapped yet are taken as they are.

    Args:
        encoder: The encoder: a module, or a config of mmpretrain's scope. Given (B, 3, H, W), its
            output, or the first of a tuple, is (B, E + P, D): E extra tokens, then P patches row
            by row.
        clip: The OpenCLIPBackbone beside it, or its config.
        mean: Per channel of the images, RGB, of 255: what was subtracted from them.
        std: Per channel: what they were divided by.
        embed_dims: D. Defaults to None: the encoder's ``embed_dims``.
        grid: Rows and columns of the encoder's patches. Defaults to None: a square.
        num_extra_tokens: E, such as the class token. Defaults to 1.
        concepts: See PCMMixup.
        top_concepts: K. Defaults to 5.
        top_patches: M, patches of CLIP; below 1 a share of them. With ``mix='random'`` the share of
            patches. Defaults to 5.
        concept_threshold: See PCMMixup. Defaults to 0.0.
        temperature: See PCMMixup. Defaults to 0.01.
        mix: ``'top'``, ``'random'``, or ``'none'``: the encoder alone. Defaults to ``'top'``.
        append_text_tokens: Whether inference appends the texts. Defaults to True.
        init_cfg: MMEngine's initialisation config. Defaults to None.

    Attributes:
        embed_dims (int): D.

    Raises:
        UserError: If a setting is out of range, or the encoder does not say its ``embed_dims``.
        MissingFileError: If a named file is missing.
    """

    def __init__(
        self,
        encoder: dict | nn.Module,
        clip: dict | nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        embed_dims: int | None = None,
        grid: Sequence[int] | None = None,
        num_extra_tokens: int = 1,
        concepts: str | os.PathLike | None = None,
        top_concepts: int = 5,
        top_patches: float = 5,
        concept_threshold: float = 0.0,
        temperature: float = 0.01,
        mix: str = "top",
        append_text_tokens: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        beside = build_module(clip)
        super().__init__(
            beside.patch_dim,
            beside.clip_dim,
            beside.num_patches,
            concepts=concepts,
            top_concepts=top_concepts,
            top_patches=top_patches,
            distinct=True,
            concept_threshold=concept_threshold,
            temperature=temperature,
            mix=mix,
            ln_post_eps=beside.head_eps,
            patches_in_joint_space=beside.patches_in_joint_space,
            init_cfg=init_cfg,
        )
        self.clip = beside
        self.encoder = build_module(encoder)
        width = embed_dims or getattr(self.encoder, "embed_dims", None)
        if width is None:
            raise UserError(
                f"{type(self.encoder).__name__} does not say its embed_dims: give embed_dims=..."
            )
        self.embed_dims = int(width)
        # Configs of other formats have lists.
        self.grid = None if grid is None else (int(grid[0]), int(grid[1]))
        self.num_extra_tokens = num_extra_tokens
        self.append_text_tokens = append_text_tokens
        if mix == "none":
            return
        if self.needs_clip_head:
            self.set_clip_head(beside.clip_head())
        self.text_proj = nn.Linear(self.clip_dim, self.embed_dims)
        self.text_pos = nn.Parameter(torch.zeros(beside.num_patches, self.embed_dims))
        self.text_norm = nn.LayerNorm(self.embed_dims)
        self.mean: Tensor
        self.std: Tensor
        self.clip_mean: Tensor
        self.clip_std: Tensor
        visual = beside.clip.visual
        scales = dict(mean=mean, std=std, clip_mean=visual.image_mean, clip_std=visual.image_std)
        for name, values in scales.items():
            scale = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, scale, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Encode images.

        Args:
            images: (B, 3, H, W), RGB, normalised by ``mean`` and ``std``.

        Returns:
            A tuple of one: (B, E + P, D) in training; (B, E + P + M, D) at inference, if texts are
            appended.

        Raises:
            UserError: If the encoder's patches are no square and ``grid`` is not given, or are
                fewer than CLIP's, or if there are no concepts yet.
        """
        tokens = self.encoder(images)
        tokens = tokens[0] if isinstance(tokens, tuple | list) else tokens
        if self.mix == "none":
            return (tokens,)
        count = tokens.shape[1] - self.num_extra_tokens
        cells = _cells(self._grid(count), self.clip.grid, tokens.device)
        patch_feats, global_feats = self.clip(self.pixels_for_clip(images))
        found = self.find(self.check_features(patch_feats, global_feats).float(), global_feats)
        text = self.text_proj(found.text) + gather_slots(
            self.text_pos.expand(len(tokens), -1, -1), found.slots
        )
        text = self.text_norm(text).to(tokens.dtype)
        if self.training:
            extra, patches = tokens.tensor_split([self.num_extra_tokens], dim=1)
            patches = replace_patches(patches, text, found.selected, cells)
            return (torch.cat([extra, patches], dim=1),)
        return (torch.cat([tokens, text], dim=1) if self.append_text_tokens else tokens,)

    def pixels_for_clip(self, images: Tensor) -> Tensor:
        """The same pixels as CLIP wants them.

        Args:
            images: (B, 3, H, W), RGB, normalised by ``mean`` and ``std``.

        Returns:
            (B, 3, h, w) in CLIP's size, normalised as CLIP does.
        """
        own = ((images.float() * self.std + self.mean) / 255).clamp(0, 1)
        own = F.interpolate(own, self.clip.clip.visual.image_size, mode="bicubic", antialias=True)
        return (own.clamp(0, 1) - self.clip_mean) / self.clip_std

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # A checkpoint of the captioner before it was wrapped has the encoder's weights here.
        own = list(self.encoder.state_dict())
        if not any(f"{prefix}encoder.{key}" in state_dict for key in own):
            unwrapped = {
                key: state_dict.pop(prefix + key) for key in own if prefix + key in state_dict
            }
            state_dict.update({f"{prefix}encoder.{key}": part for key, part in unwrapped.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _grid(self, count: int) -> tuple[int, int]:
        if self.grid is not None and math.prod(self.grid) == count:
            return self.grid
        side = math.isqrt(count)
        if self.grid is not None or side * side != count:
            raise UserError(
                f"the encoder gives {count} patches beside num_extra_tokens="
                f"{self.num_extra_tokens}, and grid={self.grid}: set grid to their rows and columns"
            )
        return side, side


@functools.cache
def _cells(fine: tuple[int, int], coarse: tuple[int, int], device: torch.device) -> Tensor:
    # Made and sent to the GPU once, not in each iteration.
    return map_patch_grid(fine, coarse).to(device)
