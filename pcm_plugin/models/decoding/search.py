"""Beam search with a decoder that attends to encoded images."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from pcm_plugin.formats.caption_vocabulary import EOS_ID, CaptionVocabulary
from pcm_plugin.models.decoders import DecoderCache
from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis, collect_captions
from pcm_plugin.models.decoding.vocabulary_constraints import vocabulary_constraints
from pcm_plugin.models.functional.beam_search import BeamOutput, Step, beam_search
from pcm_plugin.models.functional.constrained_search import (
    Constraints,
    constrained_beam_search,
)


class Decoder(Protocol):
    """A decoder that generates token by token, such as SentenceDecoder."""

    def start(self, encoder_out: Tensor, mask: Tensor) -> DecoderCache:
        """Return an empty cache for encoded images (B, L, D) with their mask (B, L)."""

    def step(self, words: Tensor, cache: DecoderCache) -> Tensor:
        """Append one token (B, W) to each beam; return logits (B, W, V) of the next."""


def search(
    step: Step,
    batch_size: int,
    decoding: DecodingConfig,
    constraints: Constraints | None,
    eos_id: int | Sequence[int],
    device: torch.device,
) -> BeamOutput:
    """Search for the best sequences, with constraints if there are any.

    Args:
        step: The decoder, see ``beam_search``.
        batch_size: Number of images.
        decoding: Settings of the search.
        constraints: Those of ``decoding`` in words of the decoder, or None.
        eos_id: Word, or words, that end a sequence.
        device: Device of the words.
    """
    settings: dict[str, Any] = {
        "eos_id": eos_id,
        "num_return": decoding.num_hypotheses,
        "device": device,
        "length_penalty": decoding.length_penalty,
    }
    sizes = batch_size, decoding.beam_size, decoding.max_len
    if constraints is None:
        return beam_search(step, *sizes, **settings)
    return constrained_beam_search(step, *sizes, constraints, **settings)


@torch.no_grad()
def search_captions(
    decoder: Decoder,
    encoder_out: Tensor,
    mask: Tensor,
    vocabulary: CaptionVocabulary,
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

    constraints = vocabulary_constraints(vocabulary, decoding)
    output = search(step, len(encoder_out), decoding, constraints, EOS_ID, encoder_out.device)
    return collect_captions(output, vocabulary.decode, decoding)
