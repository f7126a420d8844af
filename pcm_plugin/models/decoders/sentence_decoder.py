"""The sentence decoder (paper, Eq. 8), with a key/value cache for inference."""

import functools
import math
from typing import cast

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.decoders.cache import DecoderCache
from pcm_plugin.models.layers import (
    CrossAttention,
    Dropout,
    FeedForward,
    Rows,
    SelfAttention,
    prepack_linears,
)
from pcm_plugin.registry import MODELS


def sinusoid_positions(max_positions: int, embed_dims: int) -> Tensor:
    """Fixed position embeddings with the released frequencies.

    They differ from Vaswani et al. (2017): the longest wavelength grows with the table, exponent
    ``log(2 * max_positions) / D``.

    Args:
        max_positions: Rows of the table; changes the frequencies of all of them.
        embed_dims: D, even.

    Returns:
        (max_positions, D) float32: sine in the even columns, cosine in the odd ones.
    """
    steps = torch.arange(0, embed_dims, 2).float()
    frequencies = torch.exp(steps * -(math.log(2.0 * max_positions) / embed_dims))
    angles = torch.arange(max_positions).float().unsqueeze(1) * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class DecoderBlock(nn.Module):
    """Masked self-attention, cross-attention and feed-forward, post-norm.

    Args:
        embed_dims: D.
        num_heads: Attention heads.
        ffn_dims: Width of the feed-forward layer.
        attn_dropout: Dropout of the attention weights.
        dropout: All other dropouts.
        norm_eps: Of the LayerNorms.
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
        self.self_attn = SelfAttention(embed_dims, num_heads, attn_dropout, dropout, norm_eps)
        self.cross_attn = CrossAttention(embed_dims, num_heads, attn_dropout, dropout, norm_eps)
        self.ffn = FeedForward(embed_dims, ffn_dims, dropout, norm_eps)


@MODELS.register_module()
class SentenceDecoder(BaseModule):
    """Transformer decoder over words, attending to the encoded image.

    Words are embedded, a fixed position is added, then LayerNorm and dropout; the output layer is
    not tied to the embedding.

    Args:
        vocab_size: V, the stop token's index 0 included.
        embed_dims: Model width D, even. Defaults to 512.
        num_layers: Blocks. Defaults to 3.
        num_heads: Attention heads. Defaults to 8.
        ffn_dims: Width of the feed-forward layers. Defaults to 2048.
        attn_dropout: Dropout of the attention weights. Defaults to 0.3, as released.
        dropout: Dropout in the blocks. Defaults to 0.2, as released; 0.25 for COCO with
            ViT-L/14.
        embed_dropout: Dropout of the embedded words. Defaults to 0.1, as released.
        output_dropout: Dropout before the output layer. Defaults to 0.5, as released.
        max_positions: Rows of the position table. Defaults to 5000, as released; it sets the
            frequencies, so that another number is another model.
        norm_eps: Of the blocks' LayerNorms. Defaults to 1e-12, as released.
        init_cfg: MMEngine's initialisation config. Defaults to None: PyTorch's own.

    Raises:
        UserError: If ``embed_dims`` is odd or no multiple of ``num_heads``.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dims: int = 512,
        num_layers: int = 3,
        num_heads: int = 8,
        ffn_dims: int = 2048,
        attn_dropout: float = 0.3,
        dropout: float = 0.2,
        embed_dropout: float = 0.1,
        output_dropout: float = 0.5,
        max_positions: int = 5000,
        norm_eps: float = 1e-12,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if embed_dims % 2:
            raise UserError(f"embed_dims={embed_dims}: sine and cosine need an even width")
        self.vocab_size = vocab_size
        self.embed_dims = embed_dims
        self.word_embed = nn.Embedding(vocab_size, embed_dims)
        positions = sinusoid_positions(max_positions, embed_dims)
        self.register_buffer("positions", positions, persistent=False)
        self.positions: Tensor
        self.embed_norm = nn.LayerNorm(embed_dims)
        self.embed_dropout = Dropout(embed_dropout)
        self.layers = nn.ModuleList(
            DecoderBlock(embed_dims, num_heads, ffn_dims, attn_dropout, dropout, norm_eps)
            for _ in range(num_layers)
        )
        self.output_dropout = Dropout(output_dropout)
        self.output = nn.Linear(embed_dims, vocab_size)

    def forward(
        self, input_ids: Tensor, encoder_out: Tensor, mask: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Predict every next word of given captions (teacher forcing).

        Args:
            input_ids: (B, T) int64, BOS first.
            encoder_out: (B, L, D), the encoded image.
            mask: (B, L) bool, True for image tokens that may be attended to.
            lengths: (B,) int64, inputs of each caption that are no padding, n in all; nothing is
                computed for the others. Defaults to None: all T.

        Returns:
            Logits (B, T, V), or, with lengths, (n, V): the first caption's, then the second's.

        Raises:
            UserError: If T is above ``max_positions``.
        """
        x = self._embed(input_ids, 0, input_ids.shape[1] - 1)
        allowed = mask[:, None, None, :]
        rows = None
        if lengths is not None:
            rows = Rows.of(lengths, input_ids.shape[1], x.device)
            x = rows.pack(x)
        for layer in self._blocks():
            x = layer.self_attn(x, causal=True, rows=rows)
            x = layer.cross_attn(x, *layer.cross_attn.project_kv(encoder_out), allowed, rows=rows)
            x = layer.ffn(x)
        return self.output(self.output_dropout(x))

    def start(self, encoder_out: Tensor, mask: Tensor) -> DecoderCache:
        """Begin decoding word by word.

        Args:
            encoder_out: (B, L, D), the encoded images.
            mask: (B, L) bool, True for image tokens that may be attended to.

        Returns:
            A cache for :meth:`step`.
        """
        cross = (layer.cross_attn.project_kv(encoder_out) for layer in self._blocks())
        return DecoderCache.of(cross, mask)

    def step(self, words: Tensor, cache: DecoderCache) -> Tensor:
        """Predict the next word after one more word.

        Args:
            words: (B, W) int64, the last words of W beams an image.
            cache: Of :meth:`start`; the word is added to it.

        Returns:
            Logits (B, W, V).

        Raises:
            UserError: If the sentences are longer than ``max_positions``.
        """
        # The first step of a beam search has fewer rows than those that follow.
        if cache.steps == 1:
            cache.arranged = prepack_linears(self, words.numel())
        arranged = cast(SentenceDecoder, cache.arranged or self)
        # The beams of an image are queries of one attention: its keys are not repeated.
        x = self._embed(words, cache.steps, cache.steps)
        allowed = cache.begin_step(words.shape[1])
        for i, layer in enumerate(arranged._blocks()):
            x = layer.self_attn(x, allowed, past=functools.partial(cache.append, i))
            x = layer.cross_attn(x, *cache.cross[i], cache.mask)
            x = layer.ffn(x)
        return arranged.output(self.output_dropout(x))

    def _blocks(self) -> list[DecoderBlock]:
        return cast(list[DecoderBlock], list(self.layers))

    def _embed(self, words: Tensor, first: int, last: int) -> Tensor:
        """Embed words (B, T) that stand at the positions first to last, or all at one of them."""
        if last >= len(self.positions):
            raise UserError(
                f"a sentence of {last + 1} words, but max_positions={len(self.positions)}: "
                "raise it or lower max_len"
            )
        positions = self.positions[first : last + 1]
        return self.embed_dropout(self.embed_norm(self.word_embed(words) + positions))
