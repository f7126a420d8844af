"""The mix-up inside the vision encoder of another captioner (paper, Sec. 3.2 and Table 3)."""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.models.backbones.base import Backbone
from pcm_plugin.models.building import build_module
from pcm_plugin.models.functional.mix import gather_slots, map_patch_grid, replace_patches
from pcm_plugin.models.necks.clip_head import ClipHead
from pcm_plugin.models.necks.concept_bank import ConceptBank
from pcm_plugin.models.necks.patch_selection import PatchSelection
from pcm_plugin.models.necks.patch_text_matcher import PatchTextMatch, PatchTextMatcher
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class MixupVisionEncoder(BaseModule, ReadsFiles):
    """Vision encoder whose patches are mixed with texts of the image's concepts.

    It replaces the vision encoder of a captioner that cross-attends to all of its tokens, such as
    mmpretrain's BLIP and BLIP-2. The wrapped encoder need not be CLIP: a separate CLIP backbone
    sees the same pixels, retrieves the concepts and finds the patches that show them. A patch of
    the encoder belongs to the CLIP patch that contains its center.

    As in PCMMixup, training *replaces* the encoder's patches where concepts show, and inference
    *appends* the texts. These captioners have no mask for image tokens, so a fixed number of CLIP
    patches is selected (``'top_patches'``) and every token is valid. Two differences from PCMMixup
    are ours, since the tokens of the encoder are final features, while those of PCMMixup are still
    to be encoded: texts have their own position embedding, initialized to zero, and they are
    normalized as final features are.

    Weights of a captioner whose encoder was not wrapped can be loaded as they are.

    Args:
        encoder: The encoder, a module or a config of mmpretrain's scope. It maps (B, 3, H, W) to
            (B, E + P, D), or to a tuple that starts with it: E extra tokens, then P patches in
            row-major order.
        backbone: The CLIP, a Backbone such as OpenCLIPBackbone or its config.
        mean: Mean per channel (RGB, 0..255) that was subtracted from the images.
        std: Standard deviation per channel that the images were divided by.
        embed_dims: Token width D. Defaults to None, the encoder's ``embed_dims``.
        grid: Rows and columns of the encoder's patches. Defaults to None, a square grid.
        num_extra_tokens: Number E of extra tokens, such as the class token. Defaults to 1.
        concepts: Concept file; see PCMMixup. Defaults to None.
        top_concepts: Number K of concepts per image. Defaults to 5.
        selection: ``'top_patches'``, ``'random'``, or ``'none'`` for the encoder alone; see
            PCMMixup. Defaults to ``'top_patches'``.
        num_top_patches: Number M of CLIP patches for ``'top_patches'``. Defaults to 5.
        random_ratio: Share of CLIP patches for ``'random'`` in training. Defaults to None.
        concept_threshold: See PCMMixup. Defaults to 0.0.
        temperature: See PCMMixup. Defaults to 0.01.
        append_text_tokens: Whether to append the texts at inference. Defaults to True.
        init_cfg: MMEngine's initialization config. Defaults to None.

    Attributes:
        embed_dims (int): Token width D.
        matcher (PatchTextMatcher | None): Retrieves concepts and matches CLIP patches with texts;
            None with ``selection='none'``.

    Raises:
        UserError: If a setting is out of range, or the encoder has no ``embed_dims``.
        MissingFileError: If a file is missing.
    """

    input_files = {"concepts": FileKind.CONCEPT_SET}

    def __init__(
        self,
        encoder: dict | nn.Module,
        backbone: dict | Backbone,
        mean: Sequence[float],
        std: Sequence[float],
        embed_dims: int | None = None,
        grid: Sequence[int] | None = None,
        num_extra_tokens: int = 1,
        concepts: str | os.PathLike | None = None,
        top_concepts: int = 5,
        selection: str = "top_patches",
        num_top_patches: int = 5,
        random_ratio: float | None = None,
        concept_threshold: float = 0.0,
        temperature: float = 0.01,
        append_text_tokens: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if selection in ("top_pairs", "per_concept"):
            raise UserError(
                "`selection` must be 'top_patches', 'random' or 'none' in a vision encoder, got "
                f"{selection!r}: its captioner has no mask for a varying number of texts"
            )
        rule = PatchSelection(selection, num_top_patches=num_top_patches, random_ratio=random_ratio)
        clip: Backbone = build_module(backbone)
        self.backbone = clip
        self.encoder = build_module(encoder)
        self.embed_dims = _embed_dims(self.encoder, embed_dims)
        # Configs in JSON or YAML have lists.
        self.grid = None if grid is None else (int(grid[0]), int(grid[1]))
        self.num_extra_tokens = num_extra_tokens
        self.append_text_tokens = append_text_tokens
        self.matcher: PatchTextMatcher | None = None
        if selection == "none":
            return
        head = None
        if not clip.patches_in_joint_space:
            assert clip.ln_post_eps is not None
            head = ClipHead(clip.patch_dim, clip.clip_dim, clip.ln_post_eps)
            head.set_tensors(clip.clip_head())
        bank = ConceptBank(clip.clip_dim, top_concepts, concepts)
        self.matcher = PatchTextMatcher(
            clip.num_patches, clip.patch_dim, bank, head, rule, concept_threshold, temperature
        )
        self.text_proj = nn.Linear(clip.clip_dim, self.embed_dims)
        self.text_pos = nn.Parameter(torch.zeros(clip.num_patches, self.embed_dims))
        self.text_norm = nn.LayerNorm(self.embed_dims)
        self.mean: Tensor
        self.std: Tensor
        self.clip_mean: Tensor
        self.clip_std: Tensor
        scales = dict(mean=mean, std=std, clip_mean=clip.image_mean, clip_std=clip.image_std)
        for name, values in scales.items():
            scale = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)  # (3, 1, 1)
            self.register_buffer(name, scale, persistent=False)

    def set_concepts(self, words: Sequence[str], embeddings: Tensor) -> None:
        """Set the concepts; see :meth:`.ConceptBank.set_concepts`.

        Raises:
            UserError: If ``selection`` is ``'none'``, or the sizes do not match.
        """
        if self.matcher is None:
            raise UserError("`concepts` must be None with selection='none', which retrieves none")
        self.matcher.concepts.set_concepts(words, embeddings)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Encode images.

        Args:
            images: (B, 3, H, W), RGB, normalized by ``mean`` and ``std``.

        Returns:
            A tuple with one tensor, (B, E + P, D) in training and (B, E + P + M, D) at inference if
            texts are appended.

        Raises:
            UserError: If concepts are missing, the number of the encoder's patches is not a square
                and ``grid`` is not set, or its grid is coarser than CLIP's.
        """
        tokens = self.encoder(images)
        tokens = tokens[0] if isinstance(tokens, tuple | list) else tokens  # (B, E + P, D)
        if self.matcher is None:
            return (tokens,)
        grid = self._find_grid(tokens.shape[1] - self.num_extra_tokens)
        cells = _map_grid(grid, self.backbone.grid, tokens.device)  # (P,)
        patch_feats, global_feats = self.backbone(self.pixels_for_clip(images))
        match: PatchTextMatch = self.matcher(patch_feats.float(), global_feats)
        positions = gather_slots(self.text_pos.expand(len(tokens), -1, -1), match.slots)
        text = self.text_norm(self.text_proj(match.text) + positions).to(tokens.dtype)  # (B, M, D)
        if self.training:
            extra, patches = tokens.tensor_split([self.num_extra_tokens], dim=1)
            patches = replace_patches(patches, text, match.selected, cells)  # (B, P, D)
            return (torch.cat([extra, patches], dim=1),)  # (B, E + P, D)
        if self.append_text_tokens:
            tokens = torch.cat([tokens, text], dim=1)  # (B, E + P + M, D)
        return (tokens,)

    def pixels_for_clip(self, images: Tensor) -> Tensor:
        """Resize and normalize images for the CLIP backbone.

        Args:
            images: (B, 3, H, W), RGB, normalized by ``mean`` and ``std``.

        Returns:
            (B, 3, h, w) in CLIP's size and normalization.
        """
        pixels = ((images.float() * self.std + self.mean) / 255).clamp(0, 1)
        pixels = F.interpolate(pixels, self.backbone.image_size, mode="bicubic", antialias=True)
        return (pixels.clamp(0, 1) - self.clip_mean) / self.clip_std

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # In a checkpoint of the captioner without the wrapper, the encoder's weights have this
        # module's prefix.
        keys = list(self.encoder.state_dict())
        if not any(f"{prefix}encoder.{key}" in state_dict for key in keys):
            unwrapped = {
                key: state_dict.pop(prefix + key) for key in keys if prefix + key in state_dict
            }
            state_dict.update({f"{prefix}encoder.{key}": part for key, part in unwrapped.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _find_grid(self, num_patches: int) -> tuple[int, int]:
        if self.grid is not None and math.prod(self.grid) == num_patches:
            return self.grid
        side = math.isqrt(num_patches)
        if self.grid is not None or side * side != num_patches:
            raise UserError(
                f"`grid` must be the rows and columns of the encoder's {num_patches} patches (its "
                f"tokens without num_extra_tokens={self.num_extra_tokens}), got `{self.grid}`"
            )
        return side, side


def _embed_dims(encoder: nn.Module, embed_dims: int | None) -> int:
    """Return the token width of an encoder, which may be of any library."""
    width = embed_dims or getattr(encoder, "embed_dims", None)
    if width is None:
        raise UserError(
            f"`embed_dims` must be set for {type(encoder).__name__}, which has no such attribute"
        )
    return int(width)


@functools.cache
def _map_grid(fine: tuple[int, int], coarse: tuple[int, int], device: torch.device) -> Tensor:
    # Computed and copied to the GPU once, not in every iteration.
    return map_patch_grid(fine, coarse).to(device)
