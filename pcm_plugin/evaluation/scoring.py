"""Several scores of a set of captions, even if some of them fail or are undefined."""

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
from pcm_plugin.evaluation.names import ALL_SCORERS, JAVA_SCORERS, TOKENIZERS
from pcm_plugin.evaluation.ptb_tokenizer import ptb_tokenize
from pcm_plugin.evaluation.scorers import SCORE_NAMES, SCORERS, Scores, UndefinedScoreError
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.image_ids import normalize_id
from pcm_plugin.formats.languages import (
    ENGLISH,
    check_language,
    is_by_character,
    is_english,
    split_tokens,
)
from pcm_plugin.registry import MODELS


class CaptionResult(NamedTuple):
    """Caption of an image and its references.

    Attributes:
        image_id: Id of the image as text.
        caption: Generated caption.
        references: Reference captions.
        global_feats: (Dc,), CLIP embedding of the image, only for CLIPScore.
        file_name: File of the image, if the references name it.
    """

    image_id: str
    caption: str
    references: list[str]
    global_feats: torch.Tensor | None = None
    file_name: str | None = None

    @classmethod
    def from_fields(
        cls, fields: Mapping[str, Any], with_references: bool = True, global_feats: Any = None
    ) -> "CaptionResult":
        """Create a result from the fields of a data sample.

        Args:
            fields: Its fields ``image_id``, ``pred_caption`` and ``gt_caption``.
            with_references: Whether to take the references from ``gt_caption``. Defaults to True.
            global_feats: (Dc,), CLIP embedding of the image. Defaults to None.

        Raises:
            KeyError: If a field is missing.
        """
        try:
            image_id, caption = normalize_id(fields["image_id"]), fields["pred_caption"]
            references = fields["gt_caption"] if with_references else []
        except KeyError as error:
            raise KeyError(f"data samples must have {error}, got {sorted(fields)}") from None
        texts = [references] if isinstance(references, str) else list(references)
        return cls(image_id, caption, texts, global_feats)


class CaptionScorer:
    """Several scores of one set of captions.

    Args:
        scorers: See :class:`~pcm_plugin.evaluation.caption_metric.CaptionMetric`.
        tokenizer: One of :data:`.TOKENIZERS`.
        clip: Config of the CLIP for CLIPScore, or the model itself. Defaults to None.
        train_captions: Captions of the training set for ``novel``. Defaults to None.
        language: Language of the captions. Defaults to ``'en'``.

    Raises:
        UserError: If a scorer or the tokenizer is unknown or for English only, or CLIPScore has no
            ``clip``.

    Attributes:
        names: Scorers that are computed: those whose requirements are installed.
        remarks: Reasons why scores are undefined.
    """

    def __init__(
        self,
        scorers: Sequence[str] | str,
        tokenizer: str,
        clip: dict | torch.nn.Module | None = None,
        train_captions: CaptionFile | None = None,
        language: str = ENGLISH,
    ) -> None:
        # A command line easily gives one name in place of a list.
        scorers = [scorers] if isinstance(scorers, str) else list(scorers)
        unknown = [name for name in scorers if name not in ALL_SCORERS]
        if unknown or not scorers:
            raise UserError(
                f"`scorers` must be a list of {', '.join(map(repr, ALL_SCORERS))}, got {scorers}"
            )
        if tokenizer not in TOKENIZERS:
            raise UserError(f"`tokenizer` must be one of {list(TOKENIZERS)}, got {tokenizer!r}")
        if "CLIPScore" in scorers and clip is None:
            raise UserError(
                "scorers=['CLIPScore', ...] needs the CLIP that computed the features: set "
                "clip=dict(type='pcm_plugin.OpenCLIPBackbone', model_name=...)"
            )
        if tokenizer == "ptb-java" and (problem := java.missing_requirement(tokenizer)):
            raise UserError(f"tokenizer='ptb-java': {problem}, or use tokenizer='ptb'")
        check_language(language)
        if not is_english(language):
            _check_scorers(scorers, tokenizer, language)
        self.tokenizer = tokenizer
        self.language = language
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

    @property
    def tokens(self) -> str:
        """Description of the tokens that are compared, with the language."""
        if is_english(self.language):
            return f"{self.language}, {self.tokenizer} words"
        return f"{self.language}, {'characters' if is_by_character(self.language) else 'words'}"

    @cached_property
    def clip(self) -> Any:
        """CLIP of CLIPScore."""
        if isinstance(self._clip_config, torch.nn.Module):
            return self._clip_config
        return MODELS.build(self._clip_config).eval().to(get_device())

    def score(self, images: Sequence[CaptionResult], group: str = "") -> Scores:
        """Compute all scores.

        Args:
            images: At least one image. Either all have references or, if only CLIPScore and
                diversity are computed, none has; RefCLIPScore is left out then.
            group: Name of the group of images for ``remarks``. Defaults to ``''``.

        Returns:
            The scores. Those that failed or are undefined are NaN.
        """
        captions = self._tokenize([image.caption for image in images])
        flat = iter(self._tokenize([text for image in images for text in image.references]))
        references = [[" ".join(next(flat)) for _ in image.references] for image in images]
        scores = Scores({}, {})
        for name in self.names:
            result = None
            try:
                result = attempt(f"scorer {name}", self._score, name, images, captions, references)
            except UndefinedScoreError as error:
                self.remarks.append(f"group {group}: {error}" if group else str(error))
                log(self.remarks[-1], logging.WARNING)
            if result is None:
                names = SCORE_NAMES.get(name, (name,))
                each = [math.nan] * len(images)
                result = Scores(dict.fromkeys(names, math.nan), dict.fromkeys(names, each))
            scores.total.update(result.total)
            scores.each.update(result.each)
        return scores

    @cached_property
    def _train_texts(self) -> set[str] | None:
        """Tokenized captions of the training set, cached for all groups of images."""
        if self._train_captions is None:
            return None
        texts = [caption.text for caption in self._train_captions]
        return {" ".join(tokens) for tokens in self._tokenize(texts)}

    def _tokenize(self, texts: list[str]) -> list[list[str]]:
        if not is_english(self.language):
            return [split_tokens(text, self.language) for text in texts]
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
            feats = torch.stack([image.global_feats for image in images])  # type: ignore[misc]
            texts = [image.caption for image in images]
            references = [image.references for image in images]
            return clip_score(feats, texts, references if any(references) else None, self.clip)
        if name == "diversity":
            return diversity(captions, self._train_texts)
        return SCORERS[name](references, [" ".join(tokens) for tokens in captions])


def _check_scorers(scorers: list[str], tokenizer: str, language: str) -> None:
    """Check that scorers and tokenizer are not for English only."""
    english = [name for name in scorers if name in JAVA_SCORERS]
    if english:
        raise UserError(
            f"{' and '.join(english)} know only English words, got language={language!r}: leave "
            "out these scorers"
        )
    if tokenizer != TOKENIZERS[0]:
        raise UserError(
            f"`tokenizer` must be left out with language={language!r}, got {tokenizer!r}: it is "
            "for English"
        )


def finite_scores(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return scores for JSON, with None in place of NaN."""
    return {name: x if math.isfinite(x) else None for name, x in scores.items()}


def attempt(what: str, function: Callable, *args: Any) -> Any:
    """Call a function. If it raises an error, log it as a failure of ``what`` and return None."""
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
