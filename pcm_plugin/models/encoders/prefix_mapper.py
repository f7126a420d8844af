"""From visual tokens to the soft prefix of a language model."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class PrefixMapper(BaseModule):
    """Learned queries read visual tokens in a Transformer; what they become is the soft prefix.

    The form is ClipCap's (Mokady et al. 2021) as ViECap (Fei et al. 2023) has it: pre-norm blocks
    over tokens and queries together, without a norm behind the last.

    Args:
        out_dims: Width E of the prefix, that of the language model's embeddings.
        embed_dims: Width D of the tokens and of the Transformer; where it is not E, a Linear is
            behind the Transformer. Defaults to 512.
        prefix_length: Queries P. Defaults to 10, as ViECap's released code.
        num_layers: Blocks. Defaults to 8, as there.
        num_heads: Attention heads. Defaults to 8, as there.
        ffn_dims: Width of the feed-forward layers. Defaults to None: 2 * D, as there.
        dropout: Of the blocks. Defaults to 0, as there.
        qkv_bias: Whether queries, keys and values have a bias. Defaults to True; False in ViECap's
            released code.
        init_cfg: MMEngine's initialisation config. Defaults to None: PyTorch's own, and a standard
            normal distribution for the queries, as there.

    Raises:
        UserError: If a size is below 1, or the heads do not divide ``embed_dims``.
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
                f"prefix_length={prefix_length}, num_layers={num_layers}, num_heads={num_heads}: "
                f"give at least 1 of each, and heads that divide embed_dims={embed_dims}"
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
        """Make the prefix.

        Args:
            tokens: (B, L, D).
            mask: (B, L) bool, True for tokens that may be attended to.

        Returns:
            (B, P, E).
        """
        queries = self.queries.expand(len(tokens), -1, -1)
        hidden = nn.functional.pad(~mask, (len(self.queries), 0))
        mapped = torch.cat([queries, tokens], dim=1)
        for block in self.blocks:
            mapped = block(mapped, src_key_padding_mask=hidden)
        return self.out(mapped[:, : len(self.queries)])
