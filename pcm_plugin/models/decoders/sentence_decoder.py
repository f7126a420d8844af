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
    PackedSequence,
    SelfAttention,
    prepack_linears,
)
from pcm_plugin.registry import MODELS


def sinusoid_positions(max_positions: int, embed_dims: int) -> Tensor:
    """Compute sinusoidal position embeddings with the frequencies of the released code.

    Unlike in Vaswani et al. (2017), the longest wavelength grows with the length of the table: the
    exponent is ``log(2 * max_positions) / D``.

    Args:
        max_positions: Number of rows of the table; the frequencies of all rows depend on it.
        embed_dims: D, even.

    Returns:
        (max_positions, D) float32, sine in the even columns, cosine in the odd columns.
    """
    steps = torch.arange(0, embed_dims, 2).float()  # (D / 2,)
    frequencies = torch.exp(steps * -(math.log(2.0 * max_positions) / embed_dims))
    angles = torch.arange(max_positions).float().unsqueeze(1) * frequencies  # (P, D / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # (P, D)


class DecoderBlock(nn.Module):
    """Masked self-attention, cross-attention and feed-forward, post-norm.

    Args:
        embed_dims: D.
        num_heads: Attention heads.
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
        self.self_attn = SelfAttention(embed_dims, num_heads, attn_dropout, dropout, norm_eps)
        self.cross_attn = CrossAttention(embed_dims, num_heads, attn_dropout, dropout, norm_eps)
        self.ffn = FeedForward(embed_dims, ffn_dims, dropout, norm_eps)


@MODELS.register_module()
class SentenceDecoder(BaseModule):
    """Transformer decoder over words that attends to the encoded image.

    The input is the sum of word embedding and sinusoidal position, followed by LayerNorm and
    dropout. The output layer is not tied to the word embedding.

    Args:
        vocab_size: V, including the BOS and EOS token (index 0).
        embed_dims: Model width D, even. Defaults to 512.
        num_layers: Number of blocks. Defaults to 3.
        num_heads: Number of attention heads, a divisor of D. Defaults to 8.
        ffn_dims: Width of the feed-forward layers. Defaults to 2048.
        attn_dropout: Dropout of the attention weights. Defaults to 0.3, as released.
        dropout: Dropout in the blocks. Defaults to 0.2, as released; 0.25 for COCO with
            ViT-L/14.
        embed_dropout: Dropout of the embedded words. Defaults to 0.1, as released.
        output_dropout: Dropout before the output layer. Defaults to 0.5, as released.
        max_positions: Number of rows of the position table. Defaults to 5000, as released. It sets
            the frequencies, so changing it changes the model.
        norm_eps: Epsilon of the blocks' LayerNorms. Defaults to 1e-12, as released.
        init_cfg: MMEngine's initialization config. Defaults to None: PyTorch's own initialization.

    Raises:
        UserError: If ``embed_dims`` is odd or not a multiple of ``num_heads``.
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
            raise UserError(
                f"`embed_dims` must be even, got `{embed_dims}`: each frequency of the position "
                "embeddings takes two columns, sine and cosine"
            )
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
        """Predict the next word at every position of given captions (teacher forcing).

        Args:
            input_ids: (B, T) int64, BOS first.
            encoder_out: (B, L, D), the encoded image.
            mask: (B, L) bool, True for image tokens that may be attended to.
            lengths: (B,) int64, number of inputs of each caption without padding, n in total.
                Padding is then not computed. Defaults to None: all T positions.

        Returns:
            Logits (B, T, V). With ``lengths``, logits (n, V) of the first caption, then those of
            the second, and so on.

        Raises:
            UserError: If T is above ``max_positions``.
        """
        x = self._embed(input_ids, 0, input_ids.shape[1] - 1)  # (B, T, D)
        allowed = mask[:, None, None, :]  # (B, 1, 1, L)
        packing = None
        if lengths is not None:
            packing = PackedSequence.from_lengths(lengths, input_ids.shape[1], x.device)
            x = packing.pack(x)  # (n, D)
        for layer in self._blocks():
            keys, values = layer.cross_attn.project_kv(encoder_out)  # (B, H, L, d) each
            x = layer.self_attn(x, causal=True, packing=packing)
            x = layer.cross_attn(x, keys, values, allowed, packing=packing)
            x = layer.ffn(x)
        return self.output(self.output_dropout(x))

    def start(self, encoder_out: Tensor, mask: Tensor) -> DecoderCache:
        """Create the cache for decoding one word at a time.

        Args:
            encoder_out: (B, L, D), the encoded images.
            mask: (B, L) bool, True for image tokens that may be attended to.

        Returns:
            A cache for :meth:`step`.
        """
        cross_kv = (layer.cross_attn.project_kv(encoder_out) for layer in self._blocks())
        return DecoderCache.from_cross_kv(cross_kv, mask)

    def step(self, words: Tensor, cache: DecoderCache) -> Tensor:
        """Append a word to each beam and predict the next one.

        Args:
            words: (B, W) int64, the last words of the W beams of each image.
            cache: Cache from :meth:`start`; updated in place.

        Returns:
            Logits (B, W, V).

        Raises:
            UserError: If the sequences are longer than ``max_positions``.
        """
        # The first step of a beam search has fewer rows than the following ones.
        if cache.steps == 1:
            cache.prepacked = prepack_linears(self, words.numel())
        decoder = cast(SentenceDecoder, cache.prepacked or self)
        x = self._embed(words, cache.steps, cache.steps)  # (B, W, D)
        # The beams of an image are the queries of one attention, so its keys are not repeated.
        allowed = cache.begin_step(words.shape[1])  # (B, 1, W, P)
        for i, layer in enumerate(decoder._blocks()):
            x = layer.self_attn(x, allowed, update_kv=functools.partial(cache.update, i))
            x = layer.cross_attn(x, *cache.cross_kv[i], cache.cross_mask)
            x = layer.ffn(x)
        return decoder.output(self.output_dropout(x))

    def _blocks(self) -> list[DecoderBlock]:
        return cast(list[DecoderBlock], list(self.layers))

    def _embed(self, words: Tensor, first: int, last: int) -> Tensor:
        """Embed words (B, T) at the positions first to last, or all at one if these are equal."""
        if last >= len(self.positions):
            raise UserError(
                f"`max_positions` must be at least the {last + 1} words of a sentence, got "
                f"`{len(self.positions)}`: increase it, or reduce `max_len`"
            )
        positions = self.positions[first : last + 1]  # (T, D) or (1, D)
        return self.embed_dropout(self.embed_norm(self.word_embed(words) + positions))
