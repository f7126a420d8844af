"""Read training targets from data samples and write predictions into them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis
from pcm_plugin.models.necks import NeckOutput
from pcm_plugin.structures import DataSample


def read_captions(data_samples: Sequence[DataSample] | None) -> list[str]:
    """Return the training captions of data samples.

    Args:
        data_samples: Data samples with ``gt_caption`` (str).

    Raises:
        UserError: If there are no data samples, or one has no caption or several.
    """
    if data_samples is None:
        raise UserError(
            "`data_samples` must be a list with a gt_caption for each image, got `None`: pass "
            "data samples, or use mode='predict'"
        )
    captions = [sample.get("gt_caption") for sample in data_samples]
    for caption in captions:
        if not isinstance(caption, str):
            raise UserError(
                f"`gt_caption` must be one sentence (str) in training, got `{caption!r}`: build "
                "the dataset with test_mode=False"
            )
    return captions


def stack_clip_scores(data_samples: Sequence[DataSample], like: Tensor) -> Tensor | None:
    """Stack the CLIP scores of pairs.

    Args:
        data_samples: B data samples.
        like: Tensor on the device that the scores are put on.

    Returns:
        (B,) float32; None if a data sample has no ``clip_score``.
    """
    scores = [sample.get("clip_score") for sample in data_samples]
    return None if None in scores else like.new_tensor(scores, dtype=torch.float32)


def attach_captions(
    data_samples: Sequence[DataSample], captions: Sequence[list[CaptionHypothesis]], keep_all: bool
) -> None:
    """Write ``pred_caption`` and ``pred_score`` of the best caption into each data sample.

    Args:
        data_samples: B data samples.
        captions: Captions of each image, best first.
        keep_all: Whether to write all captions, as ``pred_captions``.
    """
    for sample, hypotheses in zip(data_samples, captions, strict=True):
        sample.pred_caption = hypotheses[0].caption
        sample.pred_score = hypotheses[0].log_prob
        if keep_all:
            sample.set_field(hypotheses, "pred_captions")


def attach_mixup_info(data_samples: Sequence[DataSample], neck_out: NeckOutput) -> None:
    """Write the concepts and selected patches that the neck found into data samples.

    Args:
        data_samples: B data samples.
        neck_out: Output of the neck. Fields that are None are skipped.
    """
    if neck_out.concept_ids is not None and neck_out.concept_probs is not None:
        rows = zip(neck_out.concept_ids.cpu(), neck_out.concept_probs.cpu(), strict=True)
        for sample, (ids, probs) in zip(data_samples, rows, strict=True):
            is_concept = ids >= 0
            sample.pred_concept_ids = ids[is_concept]
            sample.pred_concept_probs = probs[is_concept]
    if neck_out.affinity is not None and neck_out.selected is not None:
        maps = zip(neck_out.affinity.cpu(), neck_out.selected.cpu(), strict=True)
        for sample, (affinity, selected) in zip(data_samples, maps, strict=True):
            sample.pred_affinity = affinity
            sample.pred_selected_patches = selected.nonzero().flatten()
