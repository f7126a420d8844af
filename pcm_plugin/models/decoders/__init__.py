"""Sentence decoders."""

from .cache import DecoderCache
from .sentence_decoder import SentenceDecoder

__all__ = ["DecoderCache", "SentenceDecoder"]
