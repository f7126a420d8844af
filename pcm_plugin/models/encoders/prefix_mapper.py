"""Map visual tokens to the soft prefix of a language model."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class PrefixMapper(BaseModule):
    """Transformer over visual tokens and learned queries; outputs at the queries are the prefix.

    The architecture is that of ClipCap (Mokady et al. 2021) as used by ViECap (Fei et al. 2023):
    pre-norm blocks over queries and tokens, without a final norm.

    Args:
        out_dims: Width E of the prefix, which is that of the language model's embeddings.
        embed_dims: Width D of the tokens and of the Transformer. If it is not E, a linear layer
            follows the Transformer. Defaults to 512.
        prefix_length: Number P of queries. Defaults to 10, as in ViECap's released code.
        num_layers: Number of blocks. Defaults to 8, as in ViECap's released code.
        num_heads: Number of attention heads, a divisor of D. Defaults to 8, as in ViECap's released
            code.
        ffn_dims: Width of the feed-forward layers. Defaults to None: 2 * D, as in ViECap's released
            code.
        dropout: Dropout of the blocks. Defaults to 0, as in ViECap's released code.
        qkv_bias: Whether queries, keys and values have a bias. Defaults to True; False in ViECap's
            released code.
        init_cfg: MMEngine's initialization config. Defaults to None: PyTorch's own, and a standard
            normal distribution for the queries, as in ViECap's released code.

    Raises:
        UserError: If a size is below 1, or ``num_heads`` does not divide ``embed_dims``.
    """

    def __init__(
        self,
        out_dims: int,
        embed_dims: int = 512,
        prefix_length: int = 10,
        num_layers: int = 8,
        num_heads: int = 8,
        ffn_dims: int | None = None,
        dropout: float = 0.0,
        qkv_bias: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if min(prefix_length, num_layers, num_heads) < 1 or embed_dims % num_heads:
            raise UserError(
                "`prefix_length`, `num_layers` and `num_heads` must be at least 1, and `num_heads` "
                f"must divide embed_dims={embed_dims}, got prefix_length={prefix_length}, "
                f"num_layers={num_layers}, num_heads={num_heads}: pass e.g. 10, 8 and 8"
            )
        self.embed_dims = embed_dims
        self.out_dims = out_dims
        self.queries = nn.Parameter(torch.randn(prefix_length, embed_dims))
        width = 2 * embed_dims if ffn_dims is None else ffn_dims
        blocks = [
            nn.TransformerEncoderLayer(
                embed_dims, num_heads, width, dropout, batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        ]
        for block in blocks if not qkv_bias else ():
            block.self_attn.register_parameter("in_proj_bias", None)
        self.blocks = nn.ModuleList(blocks)
        self.out = nn.Identity() if out_dims == embed_dims else nn.Linear(embed_dims, out_dims)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Compute the prefix.

        Args:
            tokens: (B, L, D).
            mask: (B, L) bool, True for tokens that may be attended to.

        Returns:
            (B, P, E).
        """
        queries = self.queries.expand(len(tokens), -1, -1)  # (B, P, D)
        ignored = nn.functional.pad(~mask, (len(self.queries), 0))  # (B, P + L)
        x = torch.cat([queries, tokens], dim=1)  # (B, P + L, D)
        for block in self.blocks:
            x = block(x, src_key_padding_mask=ignored)
        return self.out(x[:, : len(self.queries)])
