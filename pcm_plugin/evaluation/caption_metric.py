"""Caption scores as a metric of MMEngine."""

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
from pcm_plugin.evaluation.annotations import coco_results, find_groups, read_groups
from pcm_plugin.evaluation.matched_results import ReferenceMismatchError, match_results
from pcm_plugin.evaluation.matching import ImageName
from pcm_plugin.evaluation.names import DEFAULT_SCORERS
from pcm_plugin.evaluation.references import CaptionSource, References, open_captions
from pcm_plugin.evaluation.scoring import (
    CaptionResult,
    CaptionScorer,
    attempt,
    error_text,
    finite_scores,
    log,
)
from pcm_plugin.formats.atomic_io import write_json
from pcm_plugin.formats.image_ids import name_some
from pcm_plugin.formats.languages import ENGLISH, is_english
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.registry import METRICS


@METRICS.register_module()
class CaptionMetric(BaseMetric, ReadsFiles):
    """Caption scores of COCO's evaluation server, multiplied by 100.

    The scores are computed by pycocoevalcap on tokens of the PTB tokenizer of Stanford CoreNLP
    3.4.1, which is reimplemented without Java; for other languages than English see ``language``.

    Each data sample has ``image_id`` (any), ``pred_caption`` (str) and, unless ``ann_file`` is
    given, ``gt_caption`` (str or list[str]). An image that occurs twice, because a distributed
    sampler pads the data set, counts once.

    A scorer that fails is logged and its scores are NaN; the other scores are still computed. A
    score that is not defined for the images, such as CIDEr of a single image, is NaN too, and
    ``remarks`` gives the reason. If a rank fails, all ranks raise an error that names it. Ranks
    exchange results through the process group, not through files.

    Args:
        scorers: Scores to compute:

            - ``'BLEU'``: ``BLEU-1`` to ``BLEU-4``;
            - ``'ROUGE-L'``;
            - ``'CIDEr'``: ``CIDEr``, and the same value under its other name, ``CIDEr-D``;
            - ``'METEOR'`` and ``'SPICE'``: they need Java. If Java or a file is missing, a warning
              is logged and they are skipped;
            - ``'CLIPScore'``: ``CLIPScore`` and ``RefCLIPScore``. Needs ``clip``;
            - ``'diversity'``: ``distinct-captions`` and ``distinct-words`` (counts), ``length``
              (mean number of words per caption) and, with ``train_captions``, ``novel`` (percent).

            Defaults to the first three.
        tokenizer: ``'ptb'``, or ``'ptb-java'`` for the original Java program. Defaults to
            ``'ptb'``.
        ann_file: Caption file with the references, such as COCO's or Karpathy's, to use instead of
            ``gt_caption``. A path, or a dict with the arguments of
            :class:`~pcm_plugin.formats.captions.caption_file.CaptionFile`, e.g.
            ``dict(path='refs.csv', column='text')``. Images are matched by
            :func:`~pcm_plugin.evaluation.matching.match_images`. Samples without an image in the
            file are logged and not scored, so that several metrics can share an evaluator.
            Defaults to None.
        split: Split of an ``ann_file`` that has splits. Defaults to None, which means ``'test'``.
        partial: Whether images of ``ann_file`` may lack a caption; they are logged. Otherwise a
            missing caption is an error, as in COCO's evaluation, since scores of a part of the
            images cannot be compared with scores of all. Defaults to False.
        clip: Config of the OpenCLIPBackbone that computed ``global_feats``, for CLIPScore. The
            image embeddings are taken from the batch. Defaults to None.
        train_captions: Caption file of the training set for ``novel``, given like ``ann_file``.
            Defaults to None.
        outfile: File for the captions in COCO's results format,
            ``[{"image_id": ..., "caption": ...}, ...]``. Ids that are plain decimal numbers are
            written as numbers, as COCO's tools expect. Defaults to None.
        per_image: JSON file for the scores of each image. Defaults to None.
        groups: JSON file in COCO's format whose images name their group in ``group_field``, such as
            NoCaps' annotations. Each group is also scored separately, under keys such as
            ``caption/in-domain/CIDEr``. Since CIDEr's document frequencies are those of the
            group's references, the overall score is not the mean of the groups' scores. Defaults
            to None.
        group_field: Field with the group of an image. Defaults to ``'domain'``, as in NoCaps.
        prefix: First part of the keys, e.g. ``caption/CIDEr``; ``''`` for none. Defaults to
            ``'caption'``.
        language: Code of the language of the captions, such as ``'zh'``. Captions in a language
            other than English are tokenized by :func:`~pcm_plugin.formats.languages.split_tokens`
            (characters for Chinese and Japanese), and METEOR and SPICE are refused. Language
            and kind of tokens are logged with the scores. Defaults to ``'en'``.

    Raises:
        MissingFileError: If a file does not exist.
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
        language: str = ENGLISH,
    ) -> None:
        super().__init__(prefix=prefix)
        if prefix is not None:
            self.prefix = prefix
        train_file = None if train_captions is None else open_captions(train_captions)
        if train_file is not None and "diversity" in scorers:
            train_file.scan()  # report errors in the file before the run
        self.scorer = CaptionScorer(scorers, tokenizer, clip, train_file, language)
        self.references = None if ann_file is None else References(ann_file, split)
        self.partial = partial
        self.groups = [] if groups is None else read_groups(groups, group_field)
        self.outfile, self.per_image = (
            None if f is None else Path(f) for f in (outfile, per_image)
        )
        self._failure: Exception | None = None

    @property
    def clip(self) -> Any:
        """CLIP of CLIPScore."""
        return self.scorer.clip

    @property
    def tokens(self) -> str:
        """Description of the tokens that are compared, with the language."""
        return self.scorer.tokens

    @property
    def remarks(self) -> list[str]:
        """Reasons why scores of the last evaluation are undefined."""
        return self.scorer.remarks

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Store the captions and references of a batch.

        Args:
            data_batch: Dict with ``global_feats`` (B, Dc) or ``images`` (B, 3, H, W). Only read for
                CLIPScore.
            data_samples: Data samples, or dicts of their fields.

        Raises:
            KeyError: If a sample lacks ``image_id``, ``pred_caption`` or ``gt_caption``. With
                several ranks, :meth:`evaluate` raises the error on all of them instead, so that no
                rank waits for another.
            UserError: If CLIPScore is computed and the batch has no embeddings or images.
        """
        try:
            self.results.extend(self._to_results(data_batch, data_samples))
        except Exception as error:
            if not is_distributed():
                raise
            self._failure = self._failure or error

    def evaluate(self, size: int) -> dict[str, float]:
        """Score the captions of all ranks.

        Args:
            size: Number of images without padding.

        Returns:
            Scores by name with the prefix.

        Raises:
            RuntimeError: If a rank failed. All ranks raise it, and the message names the rank.
            UserError: If images share an id, no image has a reference, or images of the
                references have no caption and ``partial`` is False.
        """
        failures = all_gather_object(self._failure and error_text(self._failure))
        failed = [f"rank {i}: {text}" for i, text in enumerate(failures) if text]
        # Rank r of w has images r, r + w, ...; interleaving restores the order of the data set.
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
            results: Results that :meth:`process` stored.
            size: Minimum number of different images. Defaults to 0.

        Returns:
            Scores by name, those of groups as ``GROUP/NAME``. NaN if a scorer failed or a score is
            undefined.

        Raises:
            UserError: See :meth:`evaluate`.
        """
        self.scorer.remarks.clear()
        matched, problem = self._match(results, size)
        images = [image for image in matched if image.references]
        if self.outfile is not None:
            # The captions are written even if they cannot be scored: they took long to generate.
            captioned = matched if self.references is None or problem else images
            rows = coco_results((image.image_id, image.caption) for image in captioned)
            attempt(f"outfile {self.outfile}", write_json, self.outfile, rows)
        if problem:
            raise ReferenceMismatchError(problem)
        without = [image.image_id for image in matched if not image.references]
        if without:
            source = "" if self.references is None else f" in {self.references}"
            log(
                f"{len(without)} of {len(matched)} images have no reference{source} and are not "
                f"scored: {name_some(without)}",
                logging.WARNING,
            )
        return self._score(images)

    def check_samples(self, samples: Sequence[Any]) -> None:
        """Check that images can be scored, before their captions are generated.

        Args:
            samples: Data samples of all images, or dicts of their fields, without captions.

        Raises:
            UserError: See :meth:`evaluate`.
        """
        fields = [sample if isinstance(sample, dict) else sample.to_dict() for sample in samples]
        from_sample = self.references is None
        results = [
            CaptionResult.from_fields({**f, "pred_caption": ""}, from_sample) for f in fields
        ]
        _, problem = self._match(results, len(results))
        if problem:
            raise ReferenceMismatchError(problem)

    def _match(self, results: list[CaptionResult], size: int) -> tuple[list[CaptionResult], str]:
        return match_results(results, size, self.references, self.partial)

    def _score(self, images: list[CaptionResult]) -> dict[str, float]:
        if not is_english(self.scorer.language):
            log(f"tokens of the scores: {self.tokens}", logging.INFO)
        scores = self.scorer.score(images)
        names = [ImageName(image.image_id, image.file_name) for image in images]
        groups = find_groups(names, self.groups)
        total = dict(scores.total)
        for name in sorted(set(filter(None, groups))):
            members = [image for image, group in zip(images, groups, strict=True) if group == name]
            total |= {f"{name}/{k}": x for k, x in self.scorer.score(members, name).total.items()}
        if self.groups and (count := groups.count(None)):
            log(
                f"{count} of {len(images)} images have no group and only count in the overall "
                "scores",
                logging.WARNING,
            )
        if self.per_image is not None:
            rows: list[dict[str, Any]] = []
            for i, (image, group) in enumerate(zip(images, groups, strict=True)):
                (row,) = coco_results([(image.image_id, image.caption)])
                row |= {"group": group} if self.groups else {}
                row |= finite_scores({name: values[i] for name, values in scores.each.items()})
                rows.append({**row, "references": image.references})
            attempt(f"per_image {self.per_image}", write_json, self.per_image, rows)
        return total

    def _to_results(self, data_batch: Any, data_samples: Sequence[Any]) -> list[CaptionResult]:
        embeddings: list[Any] = [None] * len(data_samples)
        if "CLIPScore" in self.scorer.names:
            embeddings = list(self._image_embeddings(data_batch))
        results, from_sample = [], self.references is None
        for sample, global_feats in zip(data_samples, embeddings, strict=True):
            fields = sample if isinstance(sample, dict) else sample.to_dict()
            results.append(CaptionResult.from_fields(fields, from_sample, global_feats))
        return results

    def _image_embeddings(self, data_batch: Any) -> torch.Tensor:
        batch = data_batch if isinstance(data_batch, Mapping) else {}
        if batch.get("global_feats") is not None:
            return torch.stack(list(batch["global_feats"])).float().cpu()
        if batch.get("images") is not None:
            pixels = torch.stack(list(batch["images"])).to(get_device())
            return self.clip(pixels)[1].float().cpu()
        raise UserError(f"CLIPScore needs a batch with global_feats or images, got {sorted(batch)}")
