"""Beam search with a decoder that attends to encoded images."""

from typing import Protocol

import torch
from torch import Tensor

from pcm_plugin.formats.vocabulary import EOS_ID, Vocabulary
from pcm_plugin.models.decoders import DecoderCache
from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis, collect_captions
from pcm_plugin.models.functional.beam_search import beam_search


class Decoder(Protocol):
    """A decoder that generates token by token, such as SentenceDecoder."""

    def start(self, encoder_out: Tensor, mask: Tensor) -> DecoderCache:
        """Return an empty cache for encoded images (B, L, D) with their mask (B, L)."""

    def step(self, words: Tensor, cache: DecoderCache) -> Tensor:
        """Append one token (B, W) to each beam; return logits (B, W, V) of the next."""


@torch.no_grad()
def search_captions(
    decoder: Decoder,
    encoder_out: Tensor,
    mask: Tensor,
    vocabulary: Vocabulary,
    decoding: DecodingConfig,
) -> list[list[CaptionHypothesis]]:
    """Generate captions of encoded images by beam search.

    Args:
        decoder: Decoder that generates token by token.
        encoder_out: (B, L, D), the encoded images.
        mask: (B, L) bool, True for positions that may be attended to.
        vocabulary: Vocabulary of the decoder.
        decoding: Settings of the search.

    Returns:
        The captions of each image, best first. Their number is ``num_captions``, or that of all
        beams if they are to be re-ranked.
    """
    cache = decoder.start(encoder_out, mask)

    def step(words: Tensor, parents: Tensor | None) -> Tensor:
        if parents is not None:
            cache.reorder(parents)
        logits = decoder.step(words, cache)
        if cache.steps <= decoding.min_len:
            logits[..., EOS_ID] = -torch.inf
        return logits

    output = beam_search(
        step,
        len(encoder_out),
        decoding.beam_size,
        decoding.max_len,
        num_return=decoding.num_hypotheses,
        device=encoder_out.device,
        length_penalty=decoding.length_penalty,
    )
    return collect_captions(output, vocabulary.decode, decoding.length_penalty)
