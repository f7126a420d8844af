"""Test with the runner of MMEngine, from the options of ``pcm test``."""

import argparse
import json
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from pcm_plugin.commands.run_config import load_config, prepare_process
from pcm_plugin.datasets import SynthCaptionDataset, SynthImageDataset
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.engine.distributed import stop_group
from pcm_plugin.engine.inputs import TEST_KEYS, hash_inputs, hash_settings
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.scoring import finite_scores
from pcm_plugin.formats.atomic_io import sha256, write_json


def run_test(args: argparse.Namespace) -> None:
    """Score a checkpoint with the options of the command line, and print the scores."""
    cfg = load_config(args, loops=("test",), evaluation=args.eval_on)
    if cfg.get("test_dataloader") is None:
        raise UserError(
            f"{args.config} has no test_dataloader: its data set has no real test images; add them "
            "with pcm make-dataset --test IMAGES CAPTIONS"
        )
    if not Path(args.checkpoint).is_file():
        raise MissingFileError(f"checkpoint {args.checkpoint} does not exist")
    if args.amp:
        cfg.test_cfg.fp16 = True
    tested = {
        "config": args.config,
        "eval_on": args.eval_on,
        "settings": hash_settings(cfg, TEST_KEYS),
        "inputs": hash_inputs(cfg, ("test",)),
        "checkpoint": args.checkpoint,
        "checkpoint_sha256": sha256(Path(args.checkpoint)),
    }
    prepare_process(args, cfg)
    runner = Runner.from_cfg(cfg)
    check_references(runner)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_weights(model, args.checkpoint, cfg, ("test",))
    scores = runner.test()
    metrics = finite_scores({name: float(value) for name, value in scores.items()})
    if is_main_process():
        path = Path(cfg.work_dir) / "metrics.json"
        write_json(path, {**tested, "metrics": metrics})
        print(json.dumps(metrics, indent=1))
        print(f"written to {path}")
    stop_group()


def check_references(runner: Runner) -> None:
    """Check that the images can be scored, before captions are generated.

    Raises:
        UserError: If they cannot be scored, for example because no image has references.
    """
    dataset = runner.test_loop.dataloader.dataset
    if not isinstance(dataset, SynthCaptionDataset | SynthImageDataset):
        # For other datasets the metric checks the results.
        return
    samples = [dataset.sample(i) for i in range(len(dataset))]
    for metric in runner.test_evaluator.metrics:
        if isinstance(metric, CaptionMetric):
            metric.check_samples(samples)
