"""The neck of text-only training: one token, from the global feature alone."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from pcm_plugin.models.functional.concepts import inject_noise
from pcm_plugin.models.layers import Dropout
from pcm_plugin.models.necks.output import MixupOutput
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class GlobalPrefix(BaseModule):
    """A global CLIP feature as the only token.

    Trained on text features with noise and run on image features, this is CapDec (Nukrai et al.
    2022) with our captioner behind it: the arm of an ablation that sees no image in training.

    Args:
        clip_dim: Width Dc of CLIP's joint space.
        embed_dims: Model width D. Defaults to 512.
        noise_var: Variance of the Gaussian noise on the feature in training. Defaults to 0.016,
            CapDec's and the released PCM-Net's.
        dropout: Of the token. Defaults to 0.5, as PCMMixup's.
        init_cfg: MMEngine's initialisation config. Defaults to None: PyTorch's own.
    """

    def __init__(
        self,
        clip_dim: int,
        embed_dims: int = 512,
        noise_var: float = 0.016,
        dropout: float = 0.5,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.clip_dim = clip_dim
        self.embed_dims = embed_dims
        self.noise_var = noise_var
        self.global_proj = nn.Linear(clip_dim, embed_dims)
        self.norm = nn.LayerNorm(embed_dims)
        self.dropout = Dropout(dropout)

    def forward(self, patch_feats: Tensor | None, global_feats: Tensor) -> MixupOutput:
        """Make the token.

        Args:
            patch_feats: Not used; here so that necks can be exchanged.
            global_feats: (B, Dc), an image's or a caption's CLIP feature.

        Returns:
            Tokens (B, 1, D), and a mask that is all True.

        Raises:
            ValueError: If the features have another width than the neck.
        """
        if global_feats.shape[1:] != (self.clip_dim,):
            raise ValueError(
                f"global_feats are {tuple(global_feats.shape)} but the neck was built for "
                f"(B, clip_dim={self.clip_dim}): set it to the features' size"
            )
        feats = inject_noise(global_feats.float(), self.noise_var if self.training else 0.0)
        token = self.dropout(self.norm(F.relu(self.global_proj(feats)))).unsqueeze(1)
        mask = torch.ones(token.shape[:2], dtype=torch.bool, device=token.device)
        return MixupOutput(token, mask)
