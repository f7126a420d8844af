"""Measure the costs of the systems of docs/results.md in the toy world.

    python benchmarks/systems.py            # after `make results`
    python benchmarks/systems.py --write    # also write the table to docs/results.md

Costs are measured on one thread with the data and the weights (first seed) of the systems' runs. An
iteration reads 32 pairs and computes the loss, its gradient and the optimizer's step. Captioning
reads the features of an image (or pixels, for BLIP), runs beam search, and re-ranks the captions
where the row says so. The extraction of features is not included. The last line is JSON.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from tqdm import tqdm

from pcm_plugin.commands.evaluation_names import folder_name
from pcm_plugin.commands.runs import read_config
from pcm_plugin.commands.toyworld.arms import config_of, list_tests
from pcm_plugin.commands.toyworld.scores import Row, line, rows_of, table_head
from pcm_plugin.commands.toyworld.steps import KEEP_MEMORY
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.engine.work_folder import require_best_checkpoint

PAGE = Path("docs/results.md")
START, END = "<!-- costs: benchmarks/systems.py -->", "<!-- end of costs -->"


def build(cfg: Config) -> Any:
    """Build the captioner of a config like MMEngine's runner."""
    settings = dict(cfg.model)
    if "data_preprocessor" in cfg:
        settings.setdefault("data_preprocessor", cfg.data_preprocessor)
    return MODELS.build(settings)


def measure_training(cfg: Config, iterations: int) -> dict[str, float]:
    """Measure the cost of training, without the first iteration."""
    model = build(cfg).train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    # All systems have the same number of pairs per iteration.
    batches = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    seconds: list[float] = []
    while len(seconds) <= iterations:
        start = time.perf_counter()
        for batch in batches:
            model.train_step(batch, optim_wrapper)
            seconds.append(time.perf_counter() - start)
            if len(seconds) > iterations:
                break
            start = time.perf_counter()
    iteration = sum(seconds[1:]) / iterations
    return {
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "iteration_ms": 1e3 * iteration,
        "training_minutes": iteration * len(batches) * cfg.train_cfg.max_epochs / 60,
    }


def measure_captions(cfg: Config, checkpoint: str, images: int) -> float:
    """Measure the milliseconds per caption, without the first batch of images.

    The trained captioner determines the length of the captions, and so the number of steps.
    """
    model = build(cfg)
    load_weights(model, checkpoint)
    model.eval()
    cfg.test_dataloader.batch_size = 32
    cfg.test_dataloader.dataset.pop("data_prefix", None)
    captioned, spent, start = 0, 0.0, time.perf_counter()
    with torch.inference_mode():
        for number, batch in enumerate(Runner.build_dataloader(cfg.test_dataloader, seed=0)):
            found = len(model.test_step(batch))
            if number:
                captioned, spent = captioned + found, spent + time.perf_counter() - start
            start = time.perf_counter()
            if captioned >= images:
                break
    return 1e3 * spent / captioned if captioned else float("nan")


def measure(row: Row, runs: Path, iterations: int, images: int) -> dict[str, float]:
    """Measure the costs of one row; only captioning if it uses the training of another row."""
    options = list_tests(row.arm)[folder_name(None) + row.variant].options
    cfg = read_config(config_of(row.arm), options, ("train", "val", "test"))
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "pcm_plugin")):
        training = {} if row.variant else measure_training(cfg, iterations)
        checkpoint = require_best_checkpoint(runs / row.arm / "seed0")
        return training | {"caption_ms": measure_captions(cfg, checkpoint, images)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = rows_of("systems")
    parser.add_argument("--arms", nargs="+", choices=list(rows), default=list(rows))
    parser.add_argument("--runs", type=Path, default=Path("work_dirs/toy_results"))
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE}")
    args = parser.parse_args()
    if args.write and START not in PAGE.read_text():
        sys.exit(f"{PAGE} must have the lines {START} and {END}: add them where the table belongs")
    for arm in (rows[name].arm for name in args.arms):
        if not (args.runs / arm / "seed0" / "run.json").exists():
            sys.exit(f"{args.runs} has no run of {arm}: create it with `pcm results`")
    if not KEEP_MEMORY.keys() <= os.environ.keys():
        # The settings of the training runs, which are read when a process starts.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**KEEP_MEMORY, **os.environ})
    torch.set_num_threads(1)
    found = {}
    for arm in tqdm(args.arms, desc="systems"):
        found[arm] = measure(rows[arm], args.runs, args.iterations, args.images)
    heads = ["trainable parameters", "ms per iteration", "minutes of training", "ms per caption"]
    lines = table_head(["one CPU thread", *heads])
    for arm, cost in found.items():
        cells = ["", "", ""]  # the row uses the training of another row
        if not rows[arm].variant:
            cells = [f"{cost['parameters'] / 1e6:.2f} M", f"{cost['iteration_ms']:.0f}"]
            cells.append(f"{cost['training_minutes']:.1f}")
        lines.append(line([rows[arm].title, *cells, f"{cost['caption_ms']:.1f}"]))
    print("\n".join(lines))
    if args.write:
        head, rest = PAGE.read_text().split(START)
        PAGE.write_text("\n\n".join([head + START, "\n".join(lines), END + rest.split(END)[1]]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
