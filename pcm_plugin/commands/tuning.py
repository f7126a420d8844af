"""Choice of the settings of the search, from the options of ``pcm tune``."""

import argparse
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from torch import Tensor
from tqdm import tqdm

from pcm_plugin.commands.build_commands import check_inputs
from pcm_plugin.commands.processes import shell_command
from pcm_plugin.commands.run_config import apply_cfg_options
from pcm_plugin.engine.caption_metrics import caption_metric_settings
from pcm_plugin.engine.cfg_options import format_option
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.engine.config_checks import check_config, disable_worker_options
from pcm_plugin.engine.config_files import read_config_file
from pcm_plugin.engine.feature_checks import check_features
from pcm_plugin.engine.inputs import drop_clip_head, is_validated_on_held_out
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.names import MAIN_SCORES
from pcm_plugin.evaluation.scoring import finite_scores
from pcm_plugin.formats.records import check_records_file, write_records
from pcm_plugin.models.captioner_file import is_captioner
from pcm_plugin.models.captioner_settings import check_same_captioner, write_decoding
from pcm_plugin.models.captioners.base import Captioner
from pcm_plugin.models.captioners.config_check import assert_is_captioner
from pcm_plugin.models.decoding import CaptionHypothesis, DecodingConfig
from pcm_plugin.models.decoding.config import WITHOUT_RERANKING
from pcm_plugin.models.decoding.reranking import add_similarities, rerank
from pcm_plugin.registry import MODELS

TUNED = ("beam_size", "length_penalty", "rerank", "rerank_weight")
"""Settings of the search that are chosen."""


class CachedTexts:
    """CLIP's text encoder that encodes each text only once.

    Args:
        encode: Text encoder, n texts to (n, Dc).
    """

    def __init__(self, encode: Callable[[list[str]], Tensor]) -> None:
        self._encode = encode
        self._feats: dict[str, Tensor] = {}

    def __call__(self, texts: list[str]) -> Tensor:
        """Return the features (n, Dc) of n texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._feats]
        if new:
            self._feats.update(zip(new, self._encode(new), strict=True))
        return torch.stack([self._feats[text] for text in texts])


@dataclass
class Candidates:
    """Captions of images that searches with several settings found.

    Attributes:
        images: ``image_id`` and ``gt_caption`` of each image.
        captions: Captions of each image by the settings of the search.
    """

    images: list[dict[str, Any]]
    captions: dict[DecodingConfig, list[list[CaptionHypothesis]]]


@torch.inference_mode()
def search_candidates(
    model: Captioner, batches: Iterable[Any], searches: Sequence[DecodingConfig]
) -> Candidates:
    """Encode images once, and search their captions once for each setting.

    Args:
        model: Captioner in evaluation mode. If it has a backbone, captions get their similarity.
        batches: Batches of a data loader, as for ``model.test_step``.
        searches: Settings of the searches, with ``num_captions`` equal to ``beam_size``.
    """
    found = Candidates([], {decoding: [] for decoding in searches})
    encode_text = None if model.backbone is None else CachedTexts(model.backbone.encode_text)
    for batch in batches:
        inputs = model.data_preprocessor(batch, False)
        patch_feats, global_feats = inputs.get("patch_feats"), inputs.get("global_feats")
        if inputs.get("images") is not None:
            patch_feats, global_feats = model.extract_feat(inputs["images"])
        samples = inputs["data_samples"]
        found.images += [{"image_id": s.image_id, "gt_caption": s.gt_caption} for s in samples]
        encoded = model.encode(patch_feats, global_feats, samples)
        for decoding in searches:
            captions = model.generate(encoded, decoding)
            if encode_text is not None:
                captions = add_similarities(captions, global_feats, encode_text)
            found.captions[decoding] += captions
    return found


def score_settings(
    found: Candidates, rerankings: Sequence[Mapping[str, Any]], metric: CaptionMetric
) -> list[dict[str, Any]]:
    """Score the captions for each search and re-ranking.

    Args:
        found: The captions.
        rerankings: Changes of ``rerank`` and ``rerank_weight``. A search with one beam is
            only scored with the first.
        metric: Computes the scores.

    Returns:
        A row for each: settings, and scores without the prefix of the metric.
    """
    rows = []
    for decoding, captions in found.captions.items():
        for changes in rerankings if decoding.beam_size > 1 else rerankings[:1]:
            order = decoding.updated(changes)
            best = [(rerank(b, order) if order.is_reranked else b)[0] for b in captions]
            samples = [
                {**image, "pred_caption": decoding.complete(hypothesis.caption)}
                for image, hypothesis in zip(found.images, best, strict=True)
            ]
            metric.process(None, samples)
            scores = metric.evaluate(len(samples))
            settings = {
                "beam_size": decoding.beam_size,
                "length_penalty": decoding.length_penalty,
                **changes,
            }
            rows.append({**settings, **{k.rpartition("/")[2]: v for k, v in scores.items()}})
    return rows


def run_tuning(args: argparse.Namespace) -> None:
    """Print the scores of all settings, and store the best ones."""
    if args.out is not None:
        check_records_file(args.out)
    if args.write is not None and not args.write.is_file():
        raise MissingFileError(f"--write: no captioner at {args.write}; write one with pcm export")
    if args.write is not None and not is_captioner(args.write):
        raise UserError(f"--write must be a captioner file of pcm export, got {args.write}")
    weights = sorted(set(args.rerank_weights))
    rerankings = [{"rerank": "sum", "rerank_weight": weight} for weight in weights]
    if args.ranks:
        rerankings.append({"rerank": "ranks", "rerank_weight": 0.0})
    cfg = _load_config(args)
    metric = _metric(cfg)
    model = _build_model(cfg, needs_clip=any(weights) or args.ranks)
    searches = _searches(model.decoding, args, weights)
    load_weights(model, args.checkpoint, cfg, ("val",))
    if args.write is not None:
        check_same_captioner(args.write, model, cfg.model.to_dict(), TUNED)
    model.to(args.device or get_device()).eval()
    loader = Runner.build_dataloader(cfg.val_dataloader)
    found = search_candidates(model, tqdm(loader, desc="captions of val"), searches)
    rows = score_settings(found, rerankings, metric)
    best = choose_best(rows, args.metric, metric.remarks)
    kind = "images"
    if is_validated_on_held_out(cfg):
        kind = "generated images of held-out captions"
    print(f"scores on {len(found.images):,} {kind}, the validation split of {args.config}:")
    print(f"tokens: {metric.tokens}")
    print_table(rows, best)
    if args.out is not None:
        settings = ({key: row[key] for key in TUNED} for row in rows)
        scores = ({key: row[key] for key in row if key not in TUNED} for row in rows)
        write_records(
            args.out, [s | finite_scores(r) for s, r in zip(settings, scores, strict=True)]
        )
    if best["rerank_weight"] == weights[-1] > 0:
        print("the best weight is the largest one: try larger ones with --rerank-weights")
    chosen = {key: best[key] for key in TUNED}
    if args.write is not None:
        write_decoding(args.write, chosen)
        print(f"stored in {args.write}")
        return
    options = {**(args.cfg_options or {})}
    for key, value in chosen.items():
        # The last of several options that set a value applies.
        options.pop(f"model.decoding.{key}", None)
        options[f"model.decoding.{key}"] = value
    words = [format_option(key, value) for key, value in options.items()]
    export = ["export", args.config, args.checkpoint, "--out", "captioner.safetensors"]
    print("to use the best settings, export the captioner with them:")
    print(f"  {shell_command([*export, '--cfg-options', *words])}")


def choose_best(
    rows: Sequence[dict[str, Any]], name: str, remarks: Sequence[str]
) -> dict[str, Any]:
    """Return the row with the highest score, the first of several.

    Args:
        rows: Settings and scores.
        name: Name of the score.
        remarks: Reasons why scores are undefined, for the message.

    Raises:
        UserError: If a score is NaN, since NaN can be compared with no other score.
    """
    undefined = sum(math.isnan(row[name]) for row in rows)
    if undefined:
        reason = "; ".join(dict.fromkeys(remarks)) or "the scorer failed, see the log"
        raise UserError(
            f"--metric {name} must be a number for all settings of the search, got NaN for "
            f"{undefined} of {len(rows)}, so none can be chosen: {reason}. Choose another --metric "
            "or validate on other images"
        )
    return max(rows, key=lambda row: row[name])


def print_table(rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> None:
    """Print settings and scores, with a mark at the best ones."""
    print(f"{'beam size':>9}{'length penalty':>16}{'re-ranking':>12}" + "".join(_heads()))
    for row in rows:
        order = "ranks" if row["rerank"] == "ranks" else f"{row['rerank_weight']:g}"
        settings = f"{row['beam_size']:>9}{row['length_penalty']:>16g}{order:>12}"
        scores = "".join(f"{row[name]:>10.1f}" for name in MAIN_SCORES)
        print(settings + scores + ("  best" if row is best else ""))


def _heads() -> list[str]:
    return [f"{name:>10}" for name in MAIN_SCORES]


def _load_config(args: argparse.Namespace) -> Config:
    cfg = read_config_file(args.config)
    apply_cfg_options(cfg, args.cfg_options)
    assert_is_captioner(cfg.model)
    if cfg.get("val_dataloader") is None:
        raise UserError(
            f"{args.config} has no val_dataloader: make the data set with more captions, so that "
            "some are held out, or add real images with pcm make-dataset --val IMAGES CAPTIONS"
        )
    drop_clip_head(cfg)
    disable_worker_options(cfg)
    check_config(cfg, ("val",))
    check_inputs(cfg, ("val",))
    check_features(cfg, ("val",))
    return cfg


def _build_model(cfg: Config, needs_clip: bool) -> Captioner:
    settings = cfg.model.to_dict()
    decoding = settings.get("decoding") or {}
    if decoding.get("rerank_clip") is not None:
        raise UserError(
            "model.decoding.rerank_clip must be None for pcm tune, which ranks captions by one "
            f"CLIP, got {decoding['rerank_clip']!r}"
        )
    decoding = {**decoding, **WITHOUT_RERANKING}
    backbone = settings.get("backbone")
    if backbone is None and needs_clip:
        if cfg.get("clip") is None:
            raise UserError(
                f"{cfg.filename} names no CLIP for re-ranking: clip=dict(model_name=..., "
                "pretrained=...), or pass --rerank-weights 0"
            )
        backbone = {"type": "pcm_plugin.OpenCLIPBackbone", **cfg.clip}
    return MODELS.build({**settings, "decoding": decoding, "backbone": backbone})


def _searches(
    base: DecodingConfig, args: argparse.Namespace, weights: Sequence[float]
) -> list[DecodingConfig]:
    """Return the settings of the searches, which return all beams.

    Raises:
        UserError: If a setting is out of range.
    """
    for weight in weights:
        base.updated({"rerank_weight": weight})
    for size in args.beam_sizes:
        base.updated({"beam_size": size})
    if args.ranks:  # the search then returns the mean log-probability
        base = base.updated({"rerank": "ranks"})
    penalties = args.length_penalties or [base.length_penalty]
    return [
        base.updated({"beam_size": size, "num_captions": size, "length_penalty": penalty})
        for size, penalty in itertools.product(sorted(set(args.beam_sizes)), sorted(set(penalties)))
    ]


def _metric(cfg: Config) -> CaptionMetric:
    """Return the metric of the table, with the references and the language of the config's."""
    settings = caption_metric_settings(cfg, "val")
    kept = ("tokenizer", "ann_file", "split", "partial", "language")
    return CaptionMetric(**{key: settings[key] for key in kept if key in settings})
