"""Scores of captions against references, as a metric of MMEngine."""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.device import get_device
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    is_distributed,
    is_main_process,
)
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pcm_plugin.datasets.cleaning import clean_text
from pcm_plugin.datasets.durable import write_json
from pcm_plugin.evaluation import java
from pcm_plugin.evaluation.annotations import (
    coco_results,
    find_image,
    image_key,
    read_groups,
    read_references,
    reference_file,
)
from pcm_plugin.evaluation.clip_score import clip_scores
from pcm_plugin.evaluation.diversity import diversity
from pcm_plugin.evaluation.ptb_tokenizer import ptb_tokenize
from pcm_plugin.evaluation.scorers import NO_JAVA, SCORE_NAMES, SCORERS, Scores
from pcm_plugin.registry import METRICS, MODELS
from pcm_plugin.synthesis.captions import CaptionFile

TOKENIZERS = ("ptb", "ptb-java")
"""The tokenizers: ours, and the Java program."""
KNOWN = (*SCORERS, "CLIPScore", "diversity")
"""The scorers."""
NEEDS_JAVA = ("METEOR", "SPICE")


class CaptionedImage(NamedTuple):
    """An image's caption and what it is compared with.

    Attributes:
        image_id: Any id.
        caption: What the captioner said.
        references: What people said.
        global_feats: (Dc,), CLIP's embedding of the image, for CLIPScore alone.
    """

    image_id: Any
    caption: str
    references: list[str]
    global_feats: torch.Tensor | None = None


@METRICS.register_module()
class CaptionMetric(BaseMetric):
    """Caption scores as COCO's server gives them, all times 100, without Java.

    The scorers are pycocoevalcap's; tokens are those of the PTB tokenizer (Stanford CoreNLP 3.4.1,
    as COCO's server uses it), made here without Java unless it is asked for.

    Each data sample brings ``image_id`` (any), ``pred_caption`` (str) and, without
    ``references``, ``gt_caption`` (str or list[str]). An image that comes twice, as the padding of
    distributed samplers makes it, counts once. A scorer that fails is logged by name and gives NaN,
    which no hook takes for the best; the others still come. A rank that fails is named by all of
    them, and none waits for it. Ranks exchange results through the process group, not by files.

    Args:
        scorers: Which to compute, of

            - ``'BLEU'``: ``BLEU-1`` to ``BLEU-4``;
            - ``'ROUGE-L'``;
            - ``'CIDEr'``: ``CIDEr``, and the same figure by its other name, ``CIDEr-D``;
            - ``'METEOR'``, ``'SPICE'``: with Java; where that or their files are missing, a line
              says so and they are left out;
            - ``'CLIPScore'``: ``CLIPScore`` and ``RefCLIPScore``, needs ``clip``;
            - ``'diversity'``: ``distinct-words`` (a count), ``length`` (mean words a caption) and,
              with ``train_captions``, ``novel`` (percent).

            Defaults to the first three.
        tokenizer: ``'ptb'``, or ``'ptb-java'`` for the Java program itself. Defaults to ``'ptb'``.
        references: A caption file by which captions are scored instead of ``gt_caption``, such as
            COCO's or Karpathy's; images that it does not have are passed over, so that several
            metrics can share one evaluator. Defaults to None.
        split: Of a ``references`` file that knows splits. Defaults to None: ``'test'``.
        clip: Config of the OpenCLIPBackbone that made ``global_feats``, for CLIPScore. Images'
            embeddings are taken from the batch. Defaults to None.
        train_captions: A caption file, for ``novel``. Defaults to None.
        outfile: File for the captions in COCO's results form,
            ``[{"image_id": ..., "caption": ...}, ...]``. Ids that are plain decimal numbers are
            written as numbers, as COCO's tools expect. Defaults to None.
        per_image: JSON file for the scores of each image. Defaults to None.
        groups: JSON in COCO's form whose images say in ``group_field`` which group they belong to,
            such as NoCaps' annotations. Each group is then scored as a data set of its own, under
            keys such as ``caption/in-domain/CIDEr``: CIDEr's document frequencies are those of the
            group's references, so that the overall score, of all images at once under the usual
            keys, is no mean of the groups'. Defaults to None: no groups.
        group_field: Where an image's group stands. Defaults to ``'domain'``, as in NoCaps.
        prefix: First part of the keys, e.g. ``caption/CIDEr``; ``''`` for none. Defaults to
            ``'caption'``.

    Raises:
        FileNotFoundError: If a file that is named is missing.
        ValueError: If a scorer or the tokenizer is unknown, CLIPScore has no ``clip``, or no image
            of ``groups`` has a group.
    """

    default_prefix = "caption"

    def __init__(
        self,
        scorers: Sequence[str] = NO_JAVA,
        tokenizer: str = "ptb",
        references: str | os.PathLike | None = None,
        split: str | None = None,
        clip: dict | None = None,
        train_captions: str | os.PathLike | None = None,
        outfile: str | os.PathLike | None = None,
        per_image: str | os.PathLike | None = None,
        groups: str | os.PathLike | None = None,
        group_field: str = "domain",
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        if prefix is not None:
            self.prefix = prefix
        unknown = [name for name in scorers if name not in KNOWN]
        if unknown:
            raise ValueError(f"scorers={unknown}: known are {list(KNOWN)}")
        if tokenizer not in TOKENIZERS:
            raise ValueError(f"tokenizer={tokenizer!r}: choose one of {list(TOKENIZERS)}")
        if "CLIPScore" in scorers and clip is None:
            raise ValueError(
                "scorers=['CLIPScore', ...] needs the CLIP that made the features: "
                "clip=dict(type='pcm_plugin.OpenCLIPBackbone', model_name=...)"
            )
        if tokenizer == "ptb-java" and (problem := java.missing(tokenizer)):
            raise ValueError(f"tokenizer='ptb-java': {problem}, or take tokenizer='ptb'")
        self.tokenizer = tokenizer
        self.reference_file = None if references is None else reference_file(references, split)
        self.references: dict[str, list[str]] | None = None
        if self.reference_file is not None:
            self.references = read_references(self.reference_file)
        self.groups = {} if groups is None else read_groups(groups, group_field)
        self.train_captions = None if train_captions is None else CaptionFile.of(train_captions)
        self.outfile, self.per_image = (
            None if f is None else Path(f) for f in (outfile, per_image)
        )
        self.scorers = []
        for name in scorers:
            problem = java.missing(name) if name in NEEDS_JAVA else None
            if problem:
                _log(f"{problem}; the other scores are computed", logging.WARNING)
            else:
                self.scorers.append(name)
        self._clip_config = clip
        self._failure: Exception | None = None

    @cached_property
    def clip(self) -> Any:
        """The CLIP of CLIPScore."""
        return MODELS.build(self._clip_config).eval().to(get_device())

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Keep what is needed of a batch.

        Args:
            data_batch: Read for CLIPScore alone: a dict with ``global_feats`` (B, Dc) or, for
                images, ``images`` (B, 3, H, W).
            data_samples: Data samples, or dicts of their fields.

        Raises:
            KeyError: If one lacks ``image_id``, ``pred_caption`` or ``gt_caption``; with several
                ranks all of them raise it in :meth:`evaluate`, since none may leave the others
                waiting.
            ValueError: If CLIPScore finds no embeddings.
        """
        try:
            self.results.extend(self._kept(data_batch, data_samples))
        except Exception as error:
            if not is_distributed():
                raise
            self._failure = self._failure or error

    def evaluate(self, size: int) -> dict[str, float]:
        """Score the captions of all ranks.

        Args:
            size: Images in all, padding not counted; not needed.

        Returns:
            Score by name, the prefix before it.

        Raises:
            RuntimeError: If a rank failed; names it, on all ranks.
        """
        del size
        failures = all_gather_object(self._failure and _text(self._failure))
        failed = [f"rank {i}: {text}" for i, text in enumerate(failures) if text]
        # Rank r of w has images r, r + w, ...: in turns they have their order again.
        gathered = [] if failed else all_gather_object(self.results)
        results = [r for turn in zip_longest(*gathered) for r in turn if r is not None]
        self.results.clear()
        self._failure = None
        outcome: list[Any] = [None, None]
        if is_main_process() and not failed:
            try:
                outcome = [self.compute_metrics(results), None]
            except Exception as error:
                outcome = [None, f"rank {get_rank()}: {_text(error)}"]
        broadcast_object_list(outcome)
        failed += [outcome[1]] if outcome[1] else []
        if failed:
            raise RuntimeError(f"{type(self).__name__} failed on {'; '.join(failed)}")
        metrics = outcome[0]
        return {f"{self.prefix}/{k}" if self.prefix else k: v for k, v in metrics.items()}

    def compute_metrics(self, results: list[CaptionedImage]) -> dict[str, float]:
        """Score captions.

        Args:
            results: What :meth:`process` kept.

        Returns:
            Score by name, those of groups as ``GROUP/NAME``; NaN where its scorer failed.
        """
        by_image: dict[str, CaptionedImage] = {}
        for result in results:
            by_image.setdefault(image_key(result.image_id), result)
        images = [image for image in by_image.values() if image.references]
        if self.outfile is not None:
            written = by_image.values() if self.references is None else images
            rows = coco_results((image.image_id, image.caption) for image in written)
            _attempt(f"outfile {self.outfile}", write_json, self.outfile, rows)
        if len(images) < len(by_image):
            where = "" if self.reference_file is None else f" in {self.reference_file.path}"
            _log(
                f"{len(by_image) - len(images)} of {len(by_image)} images have no reference"
                f"{where} and are not scored",
                logging.WARNING,
            )
        if not images:
            return {}
        found = self._scored(images)
        groups = [self._group(image) for image in images]
        total = dict(found.total)
        for name in sorted(set(filter(None, groups))):
            own = [image for image, group in zip(images, groups, strict=True) if group == name]
            total |= {f"{name}/{score}": x for score, x in self._scored(own).total.items()}
        if self.groups and (lost := groups.count(None)):
            _log(f"{lost} of {len(images)} images have no group: overall only", logging.WARNING)
        if self.per_image is not None:
            rows = [self._row(image, i, found.each) for i, image in enumerate(images)]
            _attempt(f"per_image {self.per_image}", write_json, self.per_image, rows)
        return total

    def _scored(self, images: list[CaptionedImage]) -> Scores:
        captions = self._tokenized([image.caption for image in images])
        flat = iter(self._tokenized([text for image in images for text in image.references]))
        references = [[" ".join(next(flat)) for _ in image.references] for image in images]
        found = Scores({}, {})
        for name in self.scorers:
            scores = _attempt(f"scorer {name}", self._score, name, images, captions, references)
            if scores is None:
                scores = Scores(dict.fromkeys(SCORE_NAMES.get(name, (name,)), math.nan), {})
            found.total.update(scores.total)
            found.each.update(scores.each)
        return found

    def _group(self, image: CaptionedImage) -> str | None:
        return self.groups.get(find_image(image.image_id, self.groups) or "")

    def _kept(self, data_batch: Any, data_samples: Sequence[Any]) -> list[CaptionedImage]:
        embedded: list[Any] = [None] * len(data_samples)
        if "CLIPScore" in self.scorers:
            embedded = list(self._embedded(data_batch))
        kept = []
        for sample, global_feats in zip(data_samples, embedded, strict=True):
            fields = sample if isinstance(sample, dict) else sample.to_dict()
            try:
                image_id, caption = fields["image_id"], fields["pred_caption"]
                if self.references is None:
                    references = fields["gt_caption"]
                else:
                    key = find_image(image_id, self.references)
                    references = [] if key is None else self.references[key]
                    # Written as the references have it, so that COCO's tools match them.
                    image_id = image_id if key is None else key
            except KeyError as error:
                raise KeyError(f"a data sample has no {error}, only {sorted(fields)}") from None
            texts = [references] if isinstance(references, str) else list(references)
            kept.append(CaptionedImage(image_key(image_id), caption, texts, global_feats))
        return kept

    def _embedded(self, data_batch: Any) -> torch.Tensor:
        batch = data_batch if isinstance(data_batch, Mapping) else {}
        if batch.get("global_feats") is not None:
            return torch.stack(list(batch["global_feats"])).float().cpu()
        if batch.get("images") is not None:
            pixels = torch.stack(list(batch["images"])).to(get_device())
            return self.clip(pixels)[1].float().cpu()
        raise ValueError(
            f"CLIPScore needs global_feats or images in the batch, which has {sorted(batch)}"
        )

    @cached_property
    def _trained_on(self) -> set[str] | None:
        """The training captions' tokens, made once for all groups of images."""
        if self.train_captions is None:
            return None
        texts = [caption.text for caption in self.train_captions]
        return {" ".join(tokens) for tokens in self._tokenized(texts)}

    def _tokenized(self, texts: list[str]) -> list[list[str]]:
        texts = [clean_text(text) for text in texts]
        if self.tokenizer == "ptb-java":
            return java.tokenize_with_java(texts)
        return [ptb_tokenize(text) for text in texts]

    def _score(
        self,
        name: str,
        images: list[CaptionedImage],
        captions: list[list[str]],
        references: list[list[str]],
    ) -> Scores:
        if name == "CLIPScore":
            embedded = torch.stack([image.global_feats for image in images])  # type: ignore[misc]
            said = [image.caption for image in images]
            return clip_scores(embedded, said, [image.references for image in images], self.clip)
        if name == "diversity":
            return diversity(captions, self._trained_on)
        return SCORERS[name](references, [" ".join(tokens) for tokens in captions])

    def _row(self, image: CaptionedImage, i: int, each: dict[str, list[float]]) -> dict[str, Any]:
        (row,) = coco_results([(image.image_id, image.caption)])
        group = {"group": self._group(image)} if self.groups else {}
        return {
            **row,
            **group,
            "references": image.references,
            **{k: v[i] for k, v in each.items()},
        }


def _attempt(what: str, function: Callable, *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        _log(f"{what} failed: {_text(error)}", logging.ERROR)
        return None


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _log(text: str, level: int) -> None:
    print_log(text, logger="current", level=level)
