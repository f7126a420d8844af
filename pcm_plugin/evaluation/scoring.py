"""Compute the scores of a set of captions, whichever scorers fail or are undefined."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from mmengine.device import get_device
from mmengine.logging import print_log

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation import java
from pcm_plugin.evaluation.clip_score import clip_score
from pcm_plugin.evaluation.diversity import diversity
from pcm_plugin.evaluation.ptb_tokenizer import ptb_tokenize
from pcm_plugin.evaluation.scorers import SCORE_NAMES, SCORERS, Scores, UndefinedScoreError
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.registry import MODELS

TOKENIZERS = ("ptb", "ptb-java")
"""The tokenizers: ours, and the Java program."""
ALL_SCORERS = (*SCORERS, "CLIPScore", "diversity")
"""The scorers."""
JAVA_SCORERS = ("METEOR", "SPICE")


class CaptionResult(NamedTuple):
    """The caption of an image and its references.

    Attributes:
        image_id: The image's id as text.
        caption: The generated caption.
        references: The reference captions.
        global_feats: (Dc,), CLIP's embedding of the image, for CLIPScore only.
        file_name: The image's file, where references or groups name it.
    """

    image_id: str
    caption: str
    references: list[str]
    global_feats: torch.Tensor | None = None
    file_name: str | None = None


class CaptionScorer:
    """Several scores of one set of captions.

    Args:
        scorers: See :class:`~pcm_plugin.evaluation.caption_metric.CaptionMetric`, as are the
            others.
        tokenizer: The tokenizer.
        clip: Config of the CLIP of CLIPScore.
        train_captions: Captions for ``novel``.

    Raises:
        UserError: If a scorer or the tokenizer is unknown, or CLIPScore has no ``clip``.

    Attributes:
        remarks: Why scores are undefined.
    """

    def __init__(
        self,
        scorers: Sequence[str] | str,
        tokenizer: str,
        clip: dict | None = None,
        train_captions: CaptionFile | None = None,
    ) -> None:
        # One name in place of a list, as a command line easily gives it.
        scorers = [scorers] if isinstance(scorers, str) else list(scorers)
        unknown = [name for name in scorers if name not in ALL_SCORERS]
        if unknown or not scorers:
            raise UserError(
                f"scorers must be a list of {', '.join(map(repr, ALL_SCORERS))}, got {scorers}"
            )
        if tokenizer not in TOKENIZERS:
            raise UserError(f"tokenizer must be one of {list(TOKENIZERS)}, got {tokenizer!r}")
        if "CLIPScore" in scorers and clip is None:
            raise UserError(
                "scorers=['CLIPScore', ...] needs the CLIP that made the features: "
                "clip=dict(type='pcm_plugin.OpenCLIPBackbone', model_name=...)"
            )
        if tokenizer == "ptb-java" and (problem := java.missing_requirement(tokenizer)):
            raise UserError(f"tokenizer='ptb-java': {problem}, or take tokenizer='ptb'")
        self.tokenizer = tokenizer
        self.remarks: list[str] = []
        self.names: list[str] = []
        for name in scorers:
            problem = java.missing_requirement(name) if name in JAVA_SCORERS else None
            if problem:
                log(f"{problem}; the other scores are computed", logging.WARNING)
            else:
                self.names.append(name)
        self._train_captions = train_captions
        self._clip_config = clip

    @cached_property
    def clip(self) -> Any:
        """The CLIP of CLIPScore."""
        return MODELS.build(self._clip_config).eval().to(get_device())

    def score(self, images: Sequence[CaptionResult], group: str = "") -> Scores:
        """Compute all scores.

        Args:
            images: At least one, each with references.
            group: Name of the group of images, for ``remarks``. Defaults to none.

        Returns:
            The scores; those that failed or are undefined are NaN.
        """
        captions = self._tokenize([image.caption for image in images])
        flat = iter(self._tokenize([text for image in images for text in image.references]))
        references = [[" ".join(next(flat)) for _ in image.references] for image in images]
        scores = Scores({}, {})
        for name in self.names:
            found = None
            try:
                found = attempt(f"scorer {name}", self._score, name, images, captions, references)
            except UndefinedScoreError as error:
                self.remarks.append(f"group {group}: {error}" if group else str(error))
                log(self.remarks[-1], logging.WARNING)
            if found is None:
                names = SCORE_NAMES.get(name, (name,))
                every = [math.nan] * len(images)
                found = Scores(dict.fromkeys(names, math.nan), dict.fromkeys(names, every))
            scores.total.update(found.total)
            scores.each.update(found.each)
        return scores

    @cached_property
    def _trained_on(self) -> set[str] | None:
        """The training captions' tokens, made once for all groups of images."""
        if self._train_captions is None:
            return None
        texts = [caption.text for caption in self._train_captions]
        return {" ".join(tokens) for tokens in self._tokenize(texts)}

    def _tokenize(self, texts: list[str]) -> list[list[str]]:
        texts = [clean_text(text) for text in texts]
        if self.tokenizer == "ptb-java":
            return java.tokenize_with_java(texts)
        return [ptb_tokenize(text) for text in texts]

    def _score(
        self,
        name: str,
        images: Sequence[CaptionResult],
        captions: list[list[str]],
        references: list[list[str]],
    ) -> Scores:
        if name == "CLIPScore":
            embedded = torch.stack([image.global_feats for image in images])  # type: ignore[misc]
            said = [image.caption for image in images]
            return clip_score(embedded, said, [image.references for image in images], self.clip)
        if name == "diversity":
            return diversity(captions, self._trained_on)
        return SCORERS[name](references, [" ".join(tokens) for tokens in captions])


def finite_scores(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return scores as JSON can hold them: None for NaN."""
    return {name: x if math.isfinite(x) else None for name, x in scores.items()}


def attempt(what: str, function: Callable, *args: Any) -> Any:
    """Call a function; log what it raises as a failure of ``what``, and return None then."""
    try:
        return function(*args)
    except UndefinedScoreError:
        raise
    except Exception as error:
        log(f"{what} failed: {error_text(error)}", logging.ERROR)
        return None


def error_text(error: Exception) -> str:
    """Return an exception's type and message."""
    return f"{type(error).__name__}: {error}"


def log(text: str, level: int) -> None:
    """Log to MMEngine's current logger."""
    print_log(text, logger="current", level=level)
