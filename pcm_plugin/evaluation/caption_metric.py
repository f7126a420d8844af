"""Scores of captions against references, as a metric of MMEngine."""

import logging
import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

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

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.annotations import coco_results, read_groups
from pcm_plugin.evaluation.matching import ImageName, match_images
from pcm_plugin.evaluation.references import CaptionSource, References, open_captions
from pcm_plugin.evaluation.scorers import DEFAULT_SCORERS
from pcm_plugin.evaluation.scoring import (
    CaptionResult,
    CaptionScorer,
    attempt,
    error_text,
    finite_scores,
    log,
)
from pcm_plugin.formats.atomic_io import write_json
from pcm_plugin.formats.image_ids import name_some, normalize_id
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.registry import METRICS

_IDS = "every image of the data set needs an id of its own"


class ReferenceMismatchError(UserError):
    """Images, ids and references that do not go together."""


@METRICS.register_module()
class CaptionMetric(BaseMetric, ReadsFiles):
    """Caption scores as COCO's server gives them, all times 100, without Java.

    The scorers are pycocoevalcap's; tokens are those of the PTB tokenizer (Stanford CoreNLP 3.4.1,
    as COCO's server uses it), made here without Java unless it is asked for.

    Each data sample has ``image_id`` (any), ``pred_caption`` (str) and, without
    ``ann_file``, ``gt_caption`` (str or list[str]). An image that comes twice, as the padding of
    distributed samplers makes it, counts once. A scorer that fails is logged by name and gives NaN,
    which no hook takes for the best; the others still come. A score that is not defined for the
    images, such as CIDEr of a single one, is NaN too, and ``remarks`` says why. A rank that fails
    is named by all of them, and none waits for it. Ranks exchange results through the process
    group, not by files.

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
        ann_file: A caption file whose captions are the references instead of ``gt_caption``,
            such as COCO's or Karpathy's; its path, or a dict of the arguments of
            :class:`~pcm_plugin.formats.captions.caption_file.CaptionFile`, such as
            ``dict(path='refs.csv', column='text')``. Images are matched by
            :func:`~pcm_plugin.evaluation.matching.match_images`. Samples that the file does not
            have are logged and not scored, so that several metrics can share one evaluator.
            Defaults to None.
        split: The split of an ``ann_file`` that has splits. Defaults to None: ``'test'``.
        partial: Whether images of ``ann_file`` may be without a caption; they are logged. By
            default that is an error, as in COCO's evaluation: a score of some of the images is
            not comparable with one of all. Defaults to False.
        clip: Config of the OpenCLIPBackbone that made ``global_feats``, for CLIPScore. Images'
            embeddings are taken from the batch. Defaults to None.
        train_captions: A caption file, as for ``ann_file``, for ``novel``. Defaults to None.
        outfile: File for the captions in COCO's results form,
            ``[{"image_id": ..., "caption": ...}, ...]``. Ids that are plain decimal numbers are
            written as numbers, as COCO's tools expect. Defaults to None.
        per_image: JSON file for the scores of each image. Defaults to None.
        groups: JSON in COCO's format whose images say in ``group_field`` to which group they
            belong, such as NoCaps' annotations. Each group is then scored as a data set of its own,
            under keys such as ``caption/in-domain/CIDEr``: CIDEr's document frequencies are those
            of the group's references, so that the overall score, of all images at once under the
            usual keys, is not the mean of the groups'. Defaults to None: no groups.
        group_field: Where an image's group stands. Defaults to ``'domain'``, as in NoCaps.
        prefix: First part of the keys, e.g. ``caption/CIDEr``; ``''`` for none. Defaults to
            ``'caption'``.

    Raises:
        MissingFileError: If a file that is named is missing.
        UserError: If a scorer or the tokenizer is unknown, CLIPScore has no ``clip``, no image
            of ``groups`` has a group, or a file cannot be read.
    """

    default_prefix = "caption"
    input_files = {"groups": FileKind.GROUPS}

    def __init__(
        self,
        scorers: Sequence[str] | str = DEFAULT_SCORERS,
        tokenizer: str = "ptb",
        ann_file: CaptionSource | None = None,
        split: str | None = None,
        clip: dict | None = None,
        train_captions: CaptionSource | None = None,
        outfile: str | os.PathLike | None = None,
        per_image: str | os.PathLike | None = None,
        groups: str | os.PathLike | None = None,
        group_field: str = "domain",
        prefix: str | None = None,
        partial: bool = False,
    ) -> None:
        super().__init__(prefix=prefix)
        if prefix is not None:
            self.prefix = prefix
        trained = None if train_captions is None else open_captions(train_captions)
        if trained is not None and "diversity" in scorers:
            trained.scan()  # an error in it must not come after the run
        self.scorer = CaptionScorer(scorers, tokenizer, clip, trained)
        self.references = None if ann_file is None else References(ann_file, split)
        self.partial = partial
        self.groups = [] if groups is None else read_groups(groups, group_field)
        self.outfile, self.per_image = (
            None if f is None else Path(f) for f in (outfile, per_image)
        )
        self._failure: Exception | None = None

    @property
    def clip(self) -> Any:
        """The CLIP of CLIPScore."""
        return self.scorer.clip

    @property
    def remarks(self) -> list[str]:
        """Why scores of the last evaluation are undefined."""
        return self.scorer.remarks

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
            UserError: If CLIPScore finds no embeddings.
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
            size: Number of images, padding not counted.

        Returns:
            Score by name, the prefix before it.

        Raises:
            RuntimeError: If a rank failed, on all ranks; the message names the rank.
            UserError: If images share an id, no image has a reference, or images of the
                references have no caption and ``partial`` is False.
        """
        failures = all_gather_object(self._failure and error_text(self._failure))
        failed = [f"rank {i}: {text}" for i, text in enumerate(failures) if text]
        # Rank r of w has images r, r + w, ...: in turns they have their order again.
        gathered = [] if failed else all_gather_object(self.results)
        results = [r for turn in zip_longest(*gathered) for r in turn if r is not None]
        self.results.clear()
        self._failure = None
        outcome: list[Any] = [None, None]
        if is_main_process() and not failed:
            try:
                outcome = [self.compute_metrics(results, size), None]
            except ReferenceMismatchError as error:
                outcome = [error, None]
            except Exception as error:
                outcome = [None, f"rank {get_rank()}: {error_text(error)}"]
        broadcast_object_list(outcome)
        failed += [outcome[1]] if outcome[1] else []
        if failed:
            raise RuntimeError(f"{type(self).__name__} failed on {'; '.join(failed)}")
        metrics = outcome[0]
        if isinstance(metrics, ReferenceMismatchError):
            raise metrics
        return {f"{self.prefix}/{k}" if self.prefix else k: v for k, v in metrics.items()}

    def compute_metrics(self, results: list[CaptionResult], size: int = 0) -> dict[str, float]:
        """Score captions.

        Args:
            results: What :meth:`process` kept.
            size: Number of images that there must be at least. Defaults to 0.

        Returns:
            Score by name, those of groups as ``GROUP/NAME``; NaN where its scorer failed, or the
            score is undefined.

        Raises:
            UserError: See :meth:`evaluate`.
        """
        self.scorer.remarks.clear()
        captioned, refusal = self._prepare(results, size)
        images = [image for image in captioned if image.references]
        if self.outfile is not None:
            written = captioned if self.references is None or refusal else images
            rows = coco_results((image.image_id, image.caption) for image in written)
            attempt(f"outfile {self.outfile}", write_json, self.outfile, rows)
        if refusal:
            raise ReferenceMismatchError(refusal)
        without = [image.image_id for image in captioned if not image.references]
        if without:
            log(
                f"{len(without)} of {len(captioned)} images have no reference{self._where} and "
                f"are not scored: {name_some(without)}",
                logging.WARNING,
            )
        return self._scores_of(images)

    def check_samples(self, samples: Sequence[Any]) -> None:
        """Check before a run that its images can be scored.

        Args:
            samples: Data samples of all images, or dicts of their fields, without captions.

        Raises:
            UserError: As :meth:`evaluate` does.
        """
        fields = [sample if isinstance(sample, dict) else sample.to_dict() for sample in samples]
        results = [self._result({**f, "pred_caption": ""}) for f in fields]
        _, refusal = self._prepare(results, len(results))
        if refusal:
            raise ReferenceMismatchError(refusal)

    def _prepare(self, results: list[CaptionResult], size: int) -> tuple[list[CaptionResult], str]:
        """Each image once, with its references; and why they cannot be scored, if so."""
        by_image: dict[str, CaptionResult] = {}
        for result in results:
            first = by_image.setdefault(result.image_id, result)
            if first.references != result.references:
                return results, f"image_id={result.image_id!r} has two lists of references: {_IDS}"
        captioned = [*by_image.values()]
        if len(captioned) < size:
            return results, f"{size} images have {len(captioned)} different image_id: {_IDS}"
        refusal = ""
        if self.references is not None:
            captioned, refusal = self._with_references(captioned)
        if not refusal and not any(image.references for image in captioned):
            ids = name_some(image.image_id for image in captioned) or "no images"
            refusal = f"no image has a reference{self._where}: {ids}"
            if self.references is not None:
                known = name_some(image.image_id for image in self.references.images)
                refusal += f"; ids there are {known}"
        return captioned, refusal

    @property
    def _where(self) -> str:
        return "" if self.references is None else f" in {self.references}"

    def _with_references(self, results: list[CaptionResult]) -> tuple[list[CaptionResult], str]:
        """Set references, and the references' ids, by which COCO's tools match; or say why not."""
        assert self.references is not None
        try:
            matched = self.references.match([ImageName(r.image_id, r.file_name) for r in results])
        except UserError as error:
            return results, str(error)
        captioned = [
            result
            if image is None
            else result._replace(
                image_id=image.image_id,
                references=image.captions,
                file_name=image.file_name or result.file_name,
            )
            for result, image in zip(results, matched, strict=True)
        ]
        missing = self.references.without_caption(matched) if any(matched) else []
        if not missing:
            return captioned, ""
        text = f"{len(missing):,} images of {self.references} have no caption: {name_some(missing)}"
        if not self.partial:
            return captioned, f"{text}; set partial=True to score the others alone"
        log(f"{text}; only the others are scored", logging.WARNING)
        return captioned, ""

    def _scores_of(self, images: list[CaptionResult]) -> dict[str, float]:
        scores = self.scorer.score(images)
        groups = self._groups_of(images)
        total = dict(scores.total)
        for name in sorted(set(filter(None, groups))):
            own = [image for image, group in zip(images, groups, strict=True) if group == name]
            total |= {f"{name}/{k}": x for k, x in self.scorer.score(own, name).total.items()}
        if self.groups and (lost := groups.count(None)):
            log(f"{lost} of {len(images)} images have no group: overall only", logging.WARNING)
        if self.per_image is not None:
            rows = [
                self._row(image, group, {k: v[i] for k, v in scores.each.items()})
                for i, (image, group) in enumerate(zip(images, groups, strict=True))
            ]
            attempt(f"per_image {self.per_image}", write_json, self.per_image, rows)
        return total

    def _groups_of(self, images: list[CaptionResult]) -> list[str | None]:
        """The group of each image, None for those without."""
        names = [ImageName(image.image_id, image.file_name) for image in images]
        found = match_images(names, [name for name, _ in self.groups])
        return [None if i is None else self.groups[i][1] for i in found]

    def _kept(self, data_batch: Any, data_samples: Sequence[Any]) -> list[CaptionResult]:
        embedded: list[Any] = [None] * len(data_samples)
        if "CLIPScore" in self.scorer.names:
            embedded = list(self._embedded(data_batch))
        kept = []
        for sample, global_feats in zip(data_samples, embedded, strict=True):
            fields = sample if isinstance(sample, dict) else sample.to_dict()
            kept.append(self._result(fields, global_feats))
        return kept

    def _result(self, fields: dict[str, Any], global_feats: Any = None) -> CaptionResult:
        try:
            image_id, caption = normalize_id(fields["image_id"]), fields["pred_caption"]
            references = [] if self.references is not None else fields["gt_caption"]
        except KeyError as error:
            raise KeyError(f"a data sample has no {error}, only {sorted(fields)}") from None
        texts = [references] if isinstance(references, str) else list(references)
        return CaptionResult(image_id, caption, texts, global_feats)

    def _embedded(self, data_batch: Any) -> torch.Tensor:
        batch = data_batch if isinstance(data_batch, Mapping) else {}
        if batch.get("global_feats") is not None:
            return torch.stack(list(batch["global_feats"])).float().cpu()
        if batch.get("images") is not None:
            pixels = torch.stack(list(batch["images"])).to(get_device())
            return self.clip(pixels)[1].float().cpu()
        raise UserError(
            f"CLIPScore needs global_feats or images in the batch, which has {sorted(batch)}"
        )

    def _row(
        self, image: CaptionResult, group: str | None, scores: dict[str, float]
    ) -> dict[str, Any]:
        (row,) = coco_results([(image.image_id, image.caption)])
        row |= {"group": group} if self.groups else {}
        return {**row, "references": image.references, **finite_scores(scores)}
