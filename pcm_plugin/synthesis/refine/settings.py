"""Settings of the selection of pairs, and of the contrastive refinement of features."""

from dataclasses import dataclass
from typing import Any

from pcm_plugin.errors import UserError

POOLINGS = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""Names of poolings, see :func:`~pcm_plugin.models.functional.pooling.pool_tokens`."""

POOL_IMAGES = ("all", "photos")
"""Pools of images, which are photos with the generated images, or photos alone."""


@dataclass(frozen=True)
class RefineSettings:
    """Settings on which the choice of pairs depends, in addition to the stores.

    Attributes:
        method: ``'sync'``, or ``'filter'``, which keeps each caption with its own image; its score
            is their CLIP score in the assigning store.
        num_images: K, candidate images per caption. Defaults to 15, as published.
        num_captions: Captions that a candidate retrieves. Defaults to 2, as published.
        keep: Share of the pairs that are kept, best scores first, rounded down as in the released
            code. Defaults to 0.9, as published, or to 1 with ``min_clip_score``.
        min_clip_score: Drop pairs whose ``clip_score`` is less.
        sentence_encoder: Sentence encoder that compares captions, see
            :class:`~pcm_plugin.synthesis.refine.sentence_encoder.SentenceEncoder`. Defaults to
            None: the caption features of the assigning store are compared.
        pooling: Pooling of an encoder whose folder does not specify one. Defaults to None.
        pairs_per_caption: Keep at most this many pairs of the captions with the same text, with
            different images, best scores first, before ``keep`` applies. With several images per
            caption, 1 with ``method='filter'`` takes the best of them by CLIP score. Defaults to
            None: all.
        score_scale: The ``clip_score`` of a pair is this many times the cosine of image and
            caption in the assigning store; SynC's release has 5 times that of SigLIP 2. Defaults to
            None: 2.5 times the cosine in the training store.

    Raises:
        UserError: If a setting is out of range, or has no effect with ``method='filter'``.
    """

    method: str = "sync"
    num_images: int = 15
    num_captions: int = 2
    keep: float | None = None
    min_clip_score: float | None = None
    sentence_encoder: str | None = None
    pooling: str | None = None
    pairs_per_caption: int | None = None
    score_scale: float | None = None

    def __post_init__(self) -> None:
        if self.method not in ("sync", "filter"):
            raise UserError(f"method must be 'sync' or 'filter', got {self.method!r}")
        for name in ("num_images", "num_captions", "pairs_per_caption"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if not 0 < self.keep_share <= 1:
            raise UserError(f"keep must be above 0 and at most 1, got {self.keep}")
        if self.score_scale is not None and not self.score_scale > 0:
            raise UserError(f"score_scale must be above 0, got {self.score_scale}")
        if self.sentence_encoder is not None and self.method == "filter":
            raise UserError("sentence_encoder has no effect with method='filter': leave it out")
        if self.pooling is not None and self.sentence_encoder is None:
            raise UserError("pooling has no effect without sentence_encoder: leave it out")

    def as_record(self) -> dict[str, Any]:
        """Return the settings as JSON, with the default of ``keep``."""
        record = {**self.__dict__, "keep": self.keep_share}
        if self.pairs_per_caption is None:
            # A setting that is not in use is omitted, so that earlier folders can be continued.
            del record["pairs_per_caption"]
        return record

    @property
    def keep_share(self) -> float:
        """Share of the pairs that are kept, with its default."""
        if self.keep is not None:
            return self.keep
        return 0.9 if self.min_clip_score is None else 1.0


@dataclass(frozen=True)
class ContrastSettings:
    """Settings on which refined features depend, in addition to the store. All defaults are ours.

    Attributes:
        steps: Gradient steps. Defaults to 10. In the toy world, the validation scores with 3, 30
            and 100 steps differ by no more than those of different seeds.
        step_size: Length of a step, see ``refine_by_contrast``. Defaults to 0.1.
        temperature: Temperature of the softmax over captions. Defaults to 0.01, the inverse of the
            logit scale of OpenAI's CLIP; for another CLIP, use its inverse logit scale.
        negatives: Number of captions of the store, chosen at random, that are negatives for all
            images. Defaults to 4,096, so memory and time do not grow with the store. At such a
            temperature only a few captions contribute to the softmax.
        seed: Seed of that choice. Defaults to 0.

    Raises:
        UserError: If a setting is out of range.
    """

    steps: int = 10
    step_size: float = 0.1
    temperature: float = 0.01
    negatives: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("steps", self.steps, 1),
            ("negatives", self.negatives, 1),
            ("seed", self.seed, 0),
        ):
            if value < least:
                raise UserError(f"{name} must be at least {least}, got {value}")
        for name, number in (("step_size", self.step_size), ("temperature", self.temperature)):
            if not number > 0:
                raise UserError(f"{name} must be above 0, got {number}")
