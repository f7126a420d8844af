"""Sentence decoders."""

from pcm_plugin.models.decoders.cache import DecoderCache
from pcm_plugin.models.decoders.sentence_decoder import SentenceDecoder

__all__ = ["DecoderCache", "SentenceDecoder"]
