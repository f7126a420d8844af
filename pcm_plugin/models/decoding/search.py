"""How an encoded image gets its captions: beam search, and a second look by CLIP."""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.vocabulary import EOS_ID, Vocabulary
from pcm_plugin.models.decoders import DecoderCache
from pcm_plugin.models.functional.beam_search import BeamOutput, beam_search


class Search(NamedTuple):
    """How captions are searched.

    Attributes:
        beam_size: Beams; 1 is greedy.
        max_len: Most words of a caption, the stop token included.
        min_len: Fewest words of a caption, the stop token not included.
        num_captions: Captions an image, the best first; at most ``beam_size``.
        rerank: Captions are ordered by their score plus this times the cosine of CLIP's embeddings
            of image and caption; 0 leaves the beam's order.
        length_penalty: The score of a caption is its log-probability divided by its number of words
            (the stop token included) to this power: 0 is the log-probability itself, 1 the mean per
            word. Positive values favor long captions.
    """

    beam_size: int = 3
    max_len: int = 20
    min_len: int = 0
    num_captions: int = 1
    rerank: float = 0.0
    length_penalty: float = 0.0

    def check(self) -> "Search":
        """Itself.

        Raises:
            UserError: If a setting is out of range; names it.
        """
        if self.beam_size < 1:
            raise UserError(f"beam_size={self.beam_size}: give at least 1")
        if not 1 <= self.num_captions <= self.beam_size:
            raise UserError(
                f"num_captions={self.num_captions}: give 1 to beam_size={self.beam_size}"
            )
        if not 0 <= self.min_len < self.max_len:
            raise UserError(
                f"min_len={self.min_len}: give 0 to less than max_len={self.max_len}, which counts "
                "the stop token"
            )
        if not math.isfinite(self.length_penalty):
            raise UserError(
                f"`length_penalty` must be a finite number, got `{self.length_penalty}`: pass 0 to "
                "rank by the sum of log-probabilities, 1 by their mean"
            )
        return self


class Found(NamedTuple):
    """A caption that was found.

    Attributes:
        caption: Its words.
        log_prob: Its log-probability.
        similarity: Cosine of CLIP's embeddings of image and caption, if captions were re-ranked.
        score: The score of the search if it is not ``log_prob``, i.e. with a length penalty.
    """

    caption: str
    log_prob: float
    similarity: float | None = None
    score: float | None = None


class Decoder(Protocol):
    """A decoder that writes word by word, such as SentenceDecoder."""

    def start(self, encoder_out: Tensor, mask: Tensor) -> DecoderCache:
        """Begin: (B, L, D) and (B, L)."""

    def step(self, words: Tensor, cache: DecoderCache) -> Tensor:
        """One more word (B, W): logits (B, W, V)."""


@torch.no_grad()
def search_captions(
    decoder: Decoder, encoder_out: Tensor, mask: Tensor, vocabulary: Vocabulary, search: Search
) -> list[list[Found]]:
    """Search the captions of encoded images.

    Args:
        decoder: Writes word by word.
        encoder_out: (B, L, D), the encoded images.
        mask: (B, L) bool, True for tokens that may be attended to.
        vocabulary: Its words.
        search: How.

    Returns:
        The captions of each image, likeliest first: ``num_captions``, or all beams where they are
        still to be re-ranked.
    """
    cache = decoder.start(encoder_out, mask)

    def step(words: Tensor, parents: Tensor | None) -> Tensor:
        if parents is not None:
            cache.reorder(parents)
        logits = decoder.step(words, cache)
        if cache.steps <= search.min_len:
            logits[..., EOS_ID] = -torch.inf
        return logits

    count = search.beam_size if search.rerank else search.num_captions
    found = beam_search(
        step,
        len(encoder_out),
        search.beam_size,
        search.max_len,
        num_return=count,
        device=encoder_out.device,
        length_penalty=search.length_penalty,
    )
    return collect_captions(found, vocabulary.decode, search)


def collect_captions(
    found: BeamOutput, decode: Callable[[list[int]], str], search: Search
) -> list[list[Found]]:
    """Turn the result of a beam search into captions.

    Args:
        found: The R best sequences of B images.
        decode: Maps the token ids of a caption, the stop token and what follows included, to text.
        search: The settings of the search.

    Returns:
        The R captions of each image, best first.
    """
    log_probs = found.log_probs.sum(-1) if search.length_penalty else found.scores
    rows = zip(found.ids.tolist(), log_probs.tolist(), found.scores.tolist(), strict=True)
    return [
        [
            Found(decode(i), log_prob, score=score if search.length_penalty else None)
            for i, log_prob, score in zip(ids, own, scores, strict=True)
        ]
        for ids, own, scores in rows
    ]


@torch.no_grad()
def rerank(
    captions: list[list[Found]],
    global_feats: Tensor,
    encode_text: Callable[[list[str]], Tensor],
    search: Search,
) -> list[list[Found]]:
    """Order captions by how well CLIP finds them to fit their image too.

    Args:
        captions: The beams of B images.
        global_feats: (B, Dc), CLIP's embeddings of the images, of any length but 0.
        encode_text: CLIP's, n texts to (n, Dc).
        search: Its ``rerank`` and ``num_captions``.

    Returns:
        The first ``num_captions`` of each image in the new order.
    """
    texts = [found.caption for own in captions for found in own]
    owners = torch.tensor([i for i, own in enumerate(captions) for _ in own])
    written = F.normalize(encode_text(texts).float(), dim=-1)
    seen = F.normalize(global_feats.float(), dim=-1).to(written.device)
    cosines = iter((written * seen[owners.to(written.device)]).sum(-1).tolist())
    scored = [[found._replace(similarity=next(cosines)) for found in own] for own in captions]

    def rank(found: Found) -> float:
        score = found.log_prob if found.score is None else found.score
        return score + search.rerank * (found.similarity or 0)

    ordered = [sorted(own, key=rank, reverse=True) for own in scored]
    return [own[: search.num_captions] for own in ordered]
