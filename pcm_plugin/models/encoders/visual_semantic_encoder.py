"""Visual-semantic encoder (paper, Eqs. 4-7)."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from pcm_plugin.models.layers import FeedForward, SelfAttention
from pcm_plugin.registry import MODELS


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward network, post-norm.

    Args:
        embed_dims: D.
        num_heads: Number of attention heads, a divisor of D.
        ffn_dims: Width of the feed-forward layer.
        attn_dropout: Dropout of the attention weights.
        dropout: All other dropout.
        norm_eps: Epsilon of the LayerNorms.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        ffn_dims: int,
        attn_dropout: float,
        dropout: float,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.attn = SelfAttention(embed_dims, num_heads, attn_dropout, dropout, norm_eps)
        self.ffn = FeedForward(embed_dims, ffn_dims, dropout, norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Compute the block: ``x`` (B, L, D) and ``mask`` (B, 1, 1, L) bool to (B, L, D)."""
        return self.ffn(self.attn(x, mask))


@MODELS.register_module()
class VisualSemanticEncoder(BaseModule):
    """Transformer over the mixed tokens, with a global token fused from all levels.

    The global tokens before the first block and after each block are concatenated, projected and
    normalized; the result replaces the global token (paper, Eq. 7).

    Args:
        embed_dims: Model width D. Defaults to 512.
        num_layers: Number of blocks. Defaults to 3.
        num_heads: Number of attention heads, a divisor of D. Defaults to 8.
        ffn_dims: Width of the feed-forward layers. Defaults to 2048.
        attn_dropout: Dropout of the attention weights. Defaults to 0.3, as released.
        dropout: All other dropout. Defaults to 0.2, as released; 0.25 for COCO with ViT-L/14.
        norm_eps: Epsilon of the blocks' LayerNorms. Defaults to 1e-12, as released.
        init_cfg: MMEngine's initialization config. Defaults to None: PyTorch's own initialization,
            as in the released code.
    """

    def __init__(
        self,
        embed_dims: int = 512,
        num_layers: int = 3,
        num_heads: int = 8,
        ffn_dims: int = 2048,
        attn_dropout: float = 0.3,
        dropout: float = 0.2,
        norm_eps: float = 1e-12,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.embed_dims = embed_dims
        self.layers = nn.ModuleList(
            EncoderBlock(embed_dims, num_heads, ffn_dims, attn_dropout, dropout, norm_eps)
            for _ in range(num_layers)
        )
        self.fuse = nn.Linear(embed_dims * (num_layers + 1), embed_dims)
        self.fuse_norm = nn.LayerNorm(embed_dims)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Encode tokens, the global one first.

        Args:
            tokens: (B, L, D).
            mask: (B, L) bool, True for tokens that may be attended to; always True for the first.

        Returns:
            (B, L, D); tokens whose ``mask`` is False are undefined.
        """
        allowed = mask[:, None, None, :]  # (B, 1, 1, L)
        levels = [tokens[:, 0]]  # (B, D) each
        for layer in self.layers:
            tokens = layer(tokens, allowed)
            levels.append(tokens[:, 0])
        concatenated = torch.cat(levels, dim=-1)  # (B, (num_layers + 1) * D)
        fused = self.fuse_norm(self.fuse(concatenated))  # (B, D)
        return torch.cat([fused.unsqueeze(1), tokens[:, 1:]], dim=1)  # (B, L, D)
