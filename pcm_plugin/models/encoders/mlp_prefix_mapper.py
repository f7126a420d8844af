"""Map the global token to the soft prefix of a language model."""

from mmengine.model import BaseModule
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class MLPPrefixMapper(BaseModule):
    """An MLP that maps the global token to the vectors of the soft prefix.

    One hidden layer with tanh, as in ClipCap (Mokady et al. 2021) and in the ``MapperEncoder`` of
    PCM-Net's released code, where it follows the visual-semantic encoder. The other tokens reach
    the prefix only through that encoder.

    Args:
        out_dims: Width E of the prefix, which is that of the language model's embeddings.
        embed_dims: Width D of the tokens. Defaults to 512.
        prefix_length: Number P of prefix vectors. Defaults to 10, as released.
        hidden_dims: Width of the hidden layer. Defaults to None: P * E // 2, as released.
        init_cfg: MMEngine's initialization config. Defaults to None: PyTorch's own, as released.

    Raises:
        UserError: If ``prefix_length`` is below 1.
    """

    def __init__(
        self,
        out_dims: int,
        embed_dims: int = 512,
        prefix_length: int = 10,
        hidden_dims: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if prefix_length < 1:
            raise UserError(
                f"`prefix_length` must be at least 1, got `{prefix_length}`: pass the number of "
                "prefix vectors, 10 in the released code"
            )
        self.embed_dims = embed_dims
        self.out_dims = out_dims
        self.prefix_length = prefix_length
        hidden_dims = prefix_length * out_dims // 2 if hidden_dims is None else hidden_dims
        self.layers = nn.Sequential(
            nn.Linear(embed_dims, hidden_dims),
            nn.Tanh(),
            nn.Linear(hidden_dims, prefix_length * out_dims),
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Map the global token.

        Args:
            tokens: (B, L, D), the global token first.
            mask: Not used, since the global token is always valid; (B, L) bool.

        Returns:
            (B, P, E).
        """
        return self.layers(tokens[:, 0]).unflatten(-1, (self.prefix_length, self.out_dims))
