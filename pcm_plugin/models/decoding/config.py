"""Settings of caption generation."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.models.decoding.phrase import clean_phrase

RERANKINGS = ("sum", "ranks")
"""Choices of ``rerank``."""

WITHOUT_RERANKING: dict[str, Any] = {
    "rerank": "sum",
    "rerank_weight": 0.0,
    "rerank_clip": None,
    "rerank_clip_pretrained": None,
}
"""Settings that switch re-ranking off."""


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Settings of beam search and re-ranking.

    Attributes:
        beam_size: Number of beams; 1 is greedy search.
        max_len: Maximum number of tokens per caption, including the end token.
        min_len: Minimum number of tokens per caption, excluding the end token.
        num_captions: Number of captions per image, best first; at most ``beam_size``.
        rerank: How the beams are ordered, one of :data:`RERANKINGS`. ``'sum'``: by their score plus
            ``rerank_weight`` times the cosine similarity of CLIP's embeddings of image and caption.
            ``'ranks'``: by the sum of their ranks under two scorers, the mean log-probability per
            token and the cosine similarity, and under any ``rerank_clip``; of equal sums by the
            log-probability. The ranks need no weight.
        rerank_weight: Weight of the cosine similarity for ``rerank='sum'``. 0 keeps the order of
            the beam search.
        rerank_clip: For ``rerank='ranks'``, a second CLIP, whose cosine similarity is a third
            scorer: name as in :class:`.OpenCLIPBackbone`. None for no such CLIP.
        rerank_clip_pretrained: Tag or file of its weights, as in :class:`.OpenCLIPBackbone`.
        length_penalty: Exponent of the caption's length (including the end token) by which its
            log-probability is divided: 0 ranks by the sum of log-probabilities, 1 by their mean per
            token. Positive values favor long captions.
        start: Words with which captions start; the decoder continues them.
        include: Words or phrases that captions contain, if necessary with more than ``beam_size``
            beams; cleaned by :func:`.clean_phrase`.
        exclude: Words or phrases that captions do not contain, cleaned likewise.
        prefix: Text that is put directly before each caption, such as a trigger word and a space.
        suffix: Text that is put directly after each caption.

    Raises:
        UserError: If a setting is out of range or of the wrong type.
    """

    beam_size: int = 3
    max_len: int = 20
    min_len: int = 0
    num_captions: int = 1
    rerank: str = "sum"
    rerank_weight: float = 0.0
    rerank_clip: str | None = None
    rerank_clip_pretrained: str | None = None
    length_penalty: float = 0.0
    start: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    prefix: str = ""
    suffix: str = ""

    def __post_init__(self) -> None:
        for name in ("start", "prefix", "suffix"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"`{name}` must be a text, got `{getattr(self, name)!r}`")
        for name in ("include", "exclude"):
            phrases = getattr(self, name)
            if not isinstance(phrases, list | tuple) or not all(
                isinstance(phrase, str) for phrase in phrases
            ):
                raise UserError(f"`{name}` must be a list of words, got `{phrases!r}`")
            # Configs and captioner files have lists.
            object.__setattr__(self, name, tuple(map(clean_phrase, phrases)))
            for text, phrase in zip(phrases, getattr(self, name), strict=True):
                if not phrase:
                    raise UserError(
                        f"`{name}` must be a list of words, got `{text!r}`, which has no visible "
                        "character: leave it out"
                    )
        if self.beam_size < 1:
            raise UserError(
                f"`beam_size` must be at least 1, got `{self.beam_size}`: pass 1 for greedy search"
            )
        if not 1 <= self.num_captions <= self.beam_size:
            raise UserError(
                f"`num_captions` must be from 1 to beam_size={self.beam_size}, got "
                f"`{self.num_captions}`: lower it or raise beam_size"
            )
        if not 0 <= self.min_len < self.max_len:
            raise UserError(
                f"`min_len` must be from 0 to less than max_len={self.max_len}, which counts the "
                f"end token, got `{self.min_len}`: lower it or raise max_len"
            )
        if not math.isfinite(self.length_penalty):
            raise UserError(
                f"`length_penalty` must be a finite number, got `{self.length_penalty}`: pass 0 to "
                "rank by the sum of log-probabilities, 1 by their mean"
            )
        if not math.isfinite(self.rerank_weight):
            raise UserError(
                f"`rerank_weight` must be a finite number, got `{self.rerank_weight}`: pass 0 to "
                "switch re-ranking off"
            )
        if self.rerank not in RERANKINGS:
            raise UserError(
                f"`rerank` must be one of {', '.join(RERANKINGS)}, got `{self.rerank!r}`"
            )
        if self.rerank == "ranks" and self.rerank_weight:
            raise UserError(
                f"`rerank_weight` has no effect with rerank='ranks', got `{self.rerank_weight}`: "
                "set it to 0, or rerank to 'sum'"
            )

        if self.rerank_clip is not None and self.rerank != "ranks":
            raise UserError(
                f"`rerank_clip` has no effect with rerank={self.rerank!r}, got "
                f"`{self.rerank_clip}`: set it to None, or rerank to 'ranks'"
            )
        if self.rerank_clip_pretrained is not None and self.rerank_clip is None:
            raise UserError(
                "`rerank_clip_pretrained` has no effect without rerank_clip, got "
                f"`{self.rerank_clip_pretrained}`: set rerank_clip to the name of the CLIP"
            )

    @property
    def is_reranked(self) -> bool:
        """Whether the beams are ordered by CLIP too."""
        return self.rerank == "ranks" or self.rerank_weight != 0

    @property
    def num_hypotheses(self) -> int:
        """Number of captions per image that the beam search returns, all beams for re-ranking."""
        return self.beam_size if self.is_reranked else self.num_captions

    @property
    def has_constraints(self) -> bool:
        """Whether the words of captions are constrained."""
        return bool(self.start or self.include or self.exclude)

    def complete(self, caption: str) -> str:
        """Return a caption with prefix and suffix."""
        return f"{self.prefix}{caption}{self.suffix}"

    def updated(self, settings: Mapping[str, Any]) -> "DecodingConfig":
        """Return a copy with changed settings.

        A change of re-ranking resets the settings that have no effect with it, unless they are
        passed too: ``rerank='ranks'`` sets ``rerank_weight`` to 0; ``rerank_weight`` sets
        ``rerank`` to ``'sum'``; ``rerank='sum'`` sets ``rerank_clip`` to None; ``rerank_clip`` sets
        ``rerank_clip_pretrained`` to None.

        Args:
            settings: New values by name of the setting.

        Raises:
            UserError: If a setting is unknown or out of range, or has no effect with the others.
        """
        names = [field.name for field in dataclasses.fields(self)]
        for name in settings:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean `{close[0]}`?" if close else ""
                raise UserError(
                    f"`decoding` must be a dict with keys out of {names}, got `{name}`{hint}"
                )
        return dataclasses.replace(self, **_with_resets(settings))


def _with_resets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return changed settings with those that they reset, see :meth:`DecodingConfig.updated`."""
    changes = dict(settings)
    if "rerank_weight" in changes:
        changes.setdefault("rerank", "sum")
    if changes.get("rerank") == "ranks":
        changes.setdefault("rerank_weight", 0.0)
    if changes.get("rerank") == "sum":
        changes.setdefault("rerank_clip", None)
    if "rerank_clip" in changes:
        changes.setdefault("rerank_clip_pretrained", None)
    return changes
