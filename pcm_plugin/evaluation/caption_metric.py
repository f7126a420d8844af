"""Scores of captions against references, as a metric of MMEngine."""

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pcm_plugin.datasets.durable import write_json
from pcm_plugin.datasets.text import tokenize
from pcm_plugin.evaluation.scorers import SCORE_NAMES, SCORERS
from pcm_plugin.registry import METRICS


@METRICS.register_module()
class CaptionMetric(BaseMetric):
    """BLEU-1 to -4, ROUGE-L and CIDEr, all times 100, without Java.

    Captions and references are tokenized by :func:`pcm_plugin.datasets.text.tokenize`, not by
    the PTB tokenizer of COCO's server, so scores differ a little from published ones. Each data
    sample brings ``image_id`` (any hashable), ``pred_caption`` (str) and ``gt_caption`` (str or
    list[str]); an image that comes twice, as the padding of distributed samplers makes it, counts
    once. A scorer that fails is logged by name, and the others still come: one process that
    raised here would leave the others waiting for it.

    Args:
        scorers: Which to compute, of ``'BLEU'``, ``'ROUGE-L'``, ``'CIDEr'``. Defaults to all.
        outfile: File for the captions in COCO's results form,
            ``[{"image_id": ..., "caption": ...}, ...]``. Ids that are plain decimal numbers are
            written as numbers, as COCO's tools expect. Defaults to None.
        collect_device: ``'cpu'`` or ``'gpu'``, by which ranks exchange results. Defaults to
            ``'cpu'``.
        prefix: First part of the keys, e.g. ``caption/CIDEr``. Defaults to ``'caption'``.
        collect_dir: Folder for the exchange by files. Defaults to None.

    Raises:
        ValueError: If a scorer is unknown.
    """

    default_prefix = "caption"

    def __init__(
        self,
        scorers: Sequence[str] = tuple(SCORERS),
        outfile: str | os.PathLike | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        unknown = [name for name in scorers if name not in SCORERS]
        if unknown:
            raise ValueError(f"scorers={unknown}: known are {list(SCORERS)}")
        self.scorers = list(scorers)
        self.outfile = None if outfile is None else Path(outfile)

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Keep what is needed of a batch.

        Args:
            data_batch: Not used.
            data_samples: Data samples, or dicts of their fields.

        Raises:
            KeyError: If one lacks ``image_id``, ``pred_caption`` or ``gt_caption``.
        """
        for sample in data_samples:
            fields = sample if isinstance(sample, dict) else sample.to_dict()
            try:
                image_id = fields["image_id"]
                caption, references = fields["pred_caption"], fields["gt_caption"]
            except KeyError as error:
                raise KeyError(f"a data sample has no {error}, only {sorted(fields)}") from None
            self.results.append(
                {
                    "image_id": image_id.item() if hasattr(image_id, "item") else image_id,
                    "caption": caption,
                    "references": [references] if isinstance(references, str) else references,
                }
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Score the captions of all ranks.

        Args:
            results: What :meth:`process` kept.

        Returns:
            Score by name, times 100; NaN where the scorer failed, which no hook takes for
            the best.
        """
        by_image: dict[Any, dict[str, Any]] = {}
        for result in results:
            by_image.setdefault(result["image_id"], result)
        if self.outfile is not None:
            _attempt(f"outfile {self.outfile}", self._write, by_image)
        scored = {key: value for key, value in by_image.items() if value["references"]}
        if len(scored) < len(by_image):
            print_log(
                f"{len(by_image) - len(scored)} of {len(by_image)} images have no reference "
                "and are not scored",
                logger="current",
                level=logging.WARNING,
            )
        if not scored:
            return {}
        captions = {key: _words(value["caption"]) for key, value in scored.items()}
        references = {key: [*map(_words, value["references"])] for key, value in scored.items()}
        metrics: dict[str, float] = {}
        for name in self.scorers:
            found = _attempt(f"scorer {name}", SCORERS[name], references, captions)
            metrics |= found or dict.fromkeys(SCORE_NAMES.get(name, (name,)), math.nan)
        return metrics

    def _write(self, by_image: dict[Any, dict[str, Any]]) -> None:
        assert self.outfile is not None
        self.outfile.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"image_id": _coco_id(key), "caption": value["caption"]}
            for key, value in by_image.items()
        ]
        write_json(self.outfile, rows)


def _attempt(what: str, function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        message = f"{what} failed: {type(error).__name__}: {error}"
        print_log(message, logger="current", level=logging.ERROR)
        return None


def _words(caption: str) -> str:
    return " ".join(tokenize(caption))


def _coco_id(image_id: Any) -> Any:
    text = str(image_id)
    return int(text) if text.isdecimal() and str(int(text)) == text else image_id
