"""Measure in the toy world what validation on generated images costs against real validation.

    python benchmarks/validation_choice.py --seeds 5  # after `pcm demo --recipe toy`, in its folder

A captioner is trained without the captions that `pcm make-dataset` would hold out, and all of its
checkpoints are kept. The checkpoint with the highest CIDEr is chosen on the held-out captions with
their generated images, and on the real validation images; the same is done for the weight of
re-ranking. The table has the CIDEr of both choices on the real test images of the town, and that
of the training on all pairs if `pcm results` has made it. Finished trainings and scores are kept in
work_dirs/validation_choice. The last line is JSON.
"""

import argparse
import copy
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from full_size_model import at_least
from mmengine.config import Config
from mmengine.runner import Runner
from tqdm import tqdm

from pcm_plugin.commands.runs import is_trained, read_config
from pcm_plugin.commands.toyworld.arms import ARMS, PAIRS, config_of
from pcm_plugin.commands.toyworld.results import WORK as RESULTS
from pcm_plugin.commands.toyworld.results import run_command
from pcm_plugin.commands.toyworld.scores import cell, difference, line, signed_cell, table_head
from pcm_plugin.commands.toyworld.steps import CAPTIONS, CLIP, DATA
from pcm_plugin.commands.tuning import score_settings, search_candidates
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_references import save_references
from pcm_plugin.formats.tokenize import tokenize
from pcm_plugin.registry import MODELS
from pcm_plugin.synthesis.pipeline.corpus_settings import ValidationSettings
from pcm_plugin.synthesis.pipeline.held_out import hold_out
from pcm_plugin.synthesis.pipeline.validation import REFERENCES, TRAIN_PAIRS, divide_pairs

WORK = Path("work_dirs/validation_choice")
TOWN = DATA / "town"
WEIGHTS = (0.0, 20.0, 50.0, 100.0, 200.0, 400.0, 800.0)
# The splits by name: settings of their dataset.
SPLITS: dict[str, dict[str, Any]] = {
    "generated": {
        "store": str(TOWN / "train_store"),
        "references": str(TOWN / REFERENCES),
    },
    "real": {"store": str(TOWN / "val_store")},
    "test": {"store": str(TOWN / "test_store")},
}
ROWS = {
    "all": "all pairs, checkpoint chosen on real images",
    "last": "last checkpoint",
    "generated": "chosen on generated images of held-out captions",
    "real": "chosen on real images",
    "best": "highest score on the test images themselves",
    "rerank_generated": "beam 5, re-ranking weight chosen on generated images",
    "rerank_real": "beam 5, re-ranking weight chosen on real images",
}


def divide(max_share: float) -> dict[str, int]:
    """Hold out captions of the town, and return how many."""
    captions = list(CaptionFile(CAPTIONS))
    settings = ValidationSettings(max_share=max_share)
    texts = [caption.text for caption in captions]
    held_out = hold_out([c.image_id for c in captions], texts, tokenize, settings)
    store = FeatureStore(TOWN / "train_store")
    if not held_out.validation:
        sys.exit(f"no captions of {CAPTIONS} can be held out with --max-share {max_share}")
    references, pairs = divide_pairs(store, captions, held_out)
    save_references(TOWN / REFERENCES, references)
    pairs.to_file(TOWN / TRAIN_PAIRS, store.identity)
    near = len(held_out.near_duplicates)
    return {"validation": len(references), "near_duplicates": near, "pairs": len(pairs.caption)}


def train(arm: str, seed: int, epochs: int | None) -> Path:
    """Train without the held-out captions, keep all validated checkpoints; return the folder."""
    work = WORK / arm / f"seed{seed}"
    work.mkdir(parents=True, exist_ok=True)
    options = [*ARMS[arm].config_options(), f"randomness.seed={seed}"]
    options += [f"{PAIRS}={TOWN / TRAIN_PAIRS}"]
    options += ["default_hooks.checkpoint.max_keep_ckpts=-1"]
    interval = read_config(config_of(arm), options, ("train",)).train_cfg.val_interval
    if epochs is not None:
        interval = 1
        options += [f"train_cfg.max_epochs={epochs}", "train_cfg.val_interval=1"]
    options += [f"default_hooks.checkpoint.interval={interval}"]
    if not is_trained(work, config_of(arm), options):
        command = ["train", str(config_of(arm)), "--resume", "--work-dir", str(work)]
        run_command([*command, "--cfg-options", *options], work / "log.txt")
    return work


def measure(work: Path, arm: str) -> dict[str, Any]:
    """Return the CIDEr of each checkpoint and setting on each split.

    The result has ``checkpoints``, ``{epoch: {split: CIDEr}}`` with the search of the config, and
    ``rerank``, ``{chosen on: {weight: {split: CIDEr}}}`` with five beams, for the checkpoint that
    was chosen on that split.
    """
    done = work / "scores.json"
    paths = {int(p.stem.removeprefix("epoch_")): p for p in sorted(work.glob("epoch_*.pth"))}
    if done.exists() and done.stat().st_mtime > max(p.stat().st_mtime for p in paths.values()):
        return json.loads(done.read_text())
    cfg = read_config(config_of(arm), ARMS[arm].config_options(), ("test",))
    clip = {"type": "pcm_plugin.OpenCLIPBackbone", "model_name": CLIP}
    model = MODELS.build({**cfg.model.to_dict(), "backbone": clip}).eval()
    loaders = {split: build_loader(cfg, settings) for split, settings in SPLITS.items()}

    def score(path: Path, beam_size: int, weights: Sequence[float]) -> dict[str, list[float]]:
        load_weights(model, str(path))
        rerankings = [{"rerank_weight": weight} for weight in weights]
        search = model.decoding.updated({"beam_size": beam_size, "num_captions": beam_size})
        return {
            split: [
                row["CIDEr"]
                for row in score_settings(
                    search_candidates(model, loader, [search]), rerankings, CaptionMetric(["CIDEr"])
                )
            ]
            for split, loader in loaders.items()
        }

    checkpoints = {}
    for epoch, path in tqdm(sorted(paths.items()), desc=str(work)):
        scores = score(path, model.decoding.beam_size, (0.0,))
        checkpoints[str(epoch)] = {split: values[0] for split, values in scores.items()}
    result: dict[str, Any] = {"checkpoints": checkpoints, "rerank": {}}
    for chosen_on in ("generated", "real"):
        epoch = max(checkpoints, key=lambda e: checkpoints[e][chosen_on])
        scores = score(paths[int(epoch)], 5, WEIGHTS)
        result["rerank"][chosen_on] = {
            f"{weight:g}": {split: values[i] for split, values in scores.items()}
            for i, weight in enumerate(WEIGHTS)
        }
    done.write_text(json.dumps(result, indent=1))
    return result


def build_loader(cfg: Config, dataset: Mapping[str, Any]) -> Any:
    """Return a loader of a split."""
    loader = copy.deepcopy(cfg.test_dataloader.to_dict())
    loader["dataset"] |= dataset
    return Runner.build_dataloader(loader)


def test_scores(result: dict[str, Any], arm: str, seed: int) -> dict[str, float]:
    """Return the CIDEr of each row on the test images."""
    checkpoints, rerank = result["checkpoints"], result["rerank"]

    def chosen(scores: dict[str, dict[str, float]], split: str) -> float:
        return max(scores.values(), key=lambda by_split: by_split[split])["test"]

    rows = {
        "last": checkpoints[max(checkpoints, key=int)]["test"],
        "generated": chosen(checkpoints, "generated"),
        "real": chosen(checkpoints, "real"),
        "best": chosen(checkpoints, "test"),
        "rerank_generated": chosen(rerank["generated"], "generated"),
        "rerank_real": chosen(rerank["real"], "real"),
    }
    metrics = RESULTS / arm / f"seed{seed}" / "in_domain" / "metrics.json"
    if metrics.exists():
        rows["all"] = json.loads(metrics.read_text())["metrics"]["caption/CIDEr"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=at_least(1), default=5)
    parser.add_argument("--arm", choices=["base", "base_average", "both"], default="base")
    parser.add_argument("--epochs", type=at_least(1), help="default: those of configs/pcm_toy.py")
    parser.add_argument("--max-share", type=float, default=ValidationSettings.max_share)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    counts = divide(args.max_share)
    print(
        "{validation} captions are held out, {near_duplicates} near-duplicates of them are not "
        "used, and {pairs} pairs remain".format(**counts)
    )
    results, values = {}, {name: {} for name in ROWS}
    for seed in range(args.seeds):
        results[seed] = measure(train(args.arm, seed, args.epochs), args.arm)
        for name, value in test_scores(results[seed], args.arm, seed).items():
            values[name][seed] = value
    print("\n".join(table_head(["", "seeds", "CIDEr", "over the choice on real images"])))
    for name, title in ROWS.items():
        other = values["rerank_real" if name.startswith("rerank") else "real"]
        gain = signed_cell(*difference(values[name], other)) if values[name] is not other else "-"
        scores = [*values[name].values()]
        print(line([title, str(len(scores)), cell(scores), gain]))
    print(json.dumps({"counts": counts, "test": values, "seeds": results}))


if __name__ == "__main__":
    main()
