"""CLIP's image head as a frozen module."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.clip_head import CLIP_HEAD_KEYS, load_clip_head
from pcm_plugin.models.functional.patch_affinity import project_patches


class ClipHead(nn.Module):
    """CLIP's ``ln_post`` and projection, which map patches into the joint space.

    It is never trained, and part of checkpoints.

    Args:
        patch_dim: Patch width Dv.
        clip_dim: Width Dc of the joint space.
        eps: Epsilon of ``ln_post``. Defaults to 1e-5.
        path: ``clip_head.safetensors`` of the CLIP that computed the features. Defaults to None:
            the head comes with a checkpoint, or from :meth:`set_tensors`.

    Attributes:
        is_set (bool): Whether the head has its weights.

    Raises:
        MissingFileError: If the file is missing.
        UserError: If its tensors have other shapes.
    """

    ln_weight: Tensor
    ln_bias: Tensor
    proj: Tensor

    def __init__(
        self,
        patch_dim: int,
        clip_dim: int,
        eps: float = 1e-5,
        path: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.is_set = False
        self.register_buffer("ln_weight", torch.ones(patch_dim))
        self.register_buffer("ln_bias", torch.zeros(patch_dim))
        self.register_buffer("proj", torch.zeros(patch_dim, clip_dim))
        if path is not None:
            self.set_tensors(load_clip_head(path))

    def set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the weights of a CLIP.

        Args:
            tensors: ``ln_post.weight`` (Dv,), ``ln_post.bias`` (Dv,) and ``proj`` (Dv, Dc).

        Raises:
            UserError: If a shape does not match.
        """
        buffers = (self.ln_weight, self.ln_bias, self.proj)
        for key, buffer in zip(CLIP_HEAD_KEYS, buffers, strict=True):
            if tensors[key].shape != buffer.shape:
                raise UserError(
                    f"`{key}` of the CLIP head must be {tuple(buffer.shape)}, got "
                    f"`{tuple(tensors[key].shape)}`: set patch_dim and clip_dim to those of the "
                    "CLIP that computed the features"
                )
            buffer.copy_(tensors[key])
        self.is_set = True

    def forward(self, patch_feats: Tensor) -> Tensor:
        """Project patches (B, N, Dv) into the joint space: (B, N, Dc), not normalized."""
        return project_patches(patch_feats, self.ln_weight, self.ln_bias, self.proj, self.eps)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.is_set = self.is_set or f"{prefix}proj" in state_dict
