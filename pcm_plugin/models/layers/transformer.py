"""Post-norm attention and feed-forward blocks, as BERT has them.

Shapes: B sequences, L queries, S keys, D model width, H heads, d = D / H.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.models.layers.dropout import Dropout


class Attention(nn.Module):
    """Multi-head attention, its output projection, the residual and the norm after it.

    Keys and values are projected apart from the queries, so that a decoder can keep them.

    Args:
        embed_dims: D.
        num_heads: H, a divisor of D.
        attn_dropout: Dropout of the attention weights.
        dropout: Dropout before the residual is added.
        norm_eps: Of the LayerNorm.

    Raises:
        ValueError: If H does not divide D.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        attn_dropout: float,
        dropout: float,
        norm_eps: float,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(
                f"num_heads={num_heads} does not divide embed_dims={embed_dims}: choose a divisor"
            )
        self.num_heads = num_heads
        self.attn_dropout = attn_dropout
        self.query = nn.Linear(embed_dims, embed_dims)
        self.key = nn.Linear(embed_dims, embed_dims)
        self.value = nn.Linear(embed_dims, embed_dims)
        self.out = nn.Linear(embed_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.dropout = Dropout(dropout)

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project what is attended to.

        Args:
            memory: (B, S, D).

        Returns:
            Keys and values, (B, H, S, d) each.
        """
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend, project, add to ``x``, normalise.

        Args:
            x: (B, L, D), the queries' states.
            keys: (B, H, S, d).
            values: (B, H, S, d).
            mask: bool, broadcastable to (B, H, L, S), True where attention is allowed.
            causal: Whether query i sees keys up to i only; excludes ``mask``.

        Returns:
            (B, L, D).
        """
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(x)),
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.attn_dropout if self.training else 0.0,
            is_causal=causal,
        )
        return self.norm(x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Linear, ReLU, Linear, the residual and the norm after it.

    Args:
        embed_dims: D.
        ffn_dims: Width between the two layers.
        dropout: After the activation, and again before the residual is added.
        norm_eps: Of the LayerNorm.
    """

    def __init__(self, embed_dims: int, ffn_dims: int, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, ffn_dims)
        self.fc2 = nn.Linear(ffn_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        hidden = self.dropout(F.relu(self.fc1(x)))
        return self.norm(x + self.dropout(self.fc2(hidden)))
