"""Sentence decoders and their key-value cache."""

from pcm_plugin.models.decoders.cache import DecoderCache
from pcm_plugin.models.decoders.sentence_decoder import SentenceDecoder

__all__ = ["DecoderCache", "SentenceDecoder"]
