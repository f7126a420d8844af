"""Run every function that writes files once: ``python -m tests.writers OUT INPUTS``.

tests/test_writers.py runs this in several processes and compares their files.
"""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from pcm_plugin import cli

NAME = "pcm-net_toy"
CAPTIONS = [f"the {a} runs next to a {b}" for a in ("dog", "cat", "car") for b in ("tree", "house")]
WRITERS: dict[str, Callable[[Path, Path], None]] = {}


def prepare(inputs: Path) -> None:
    """Write the input files of the writers."""
    import yaml

    from tests.builders import build_clip, build_pipeline

    recipe = {
        "vocabulary": {"min_count": 1},
        "concepts": {"min_count": 1},
        "generate": {
            "pipeline": str(build_pipeline(inputs / "pipeline")),
            "steps": 2,
            "format": "png",
            "shard_size": 4,
        },
        "extract": {"model": build_clip(inputs / "clip")},
        "refine": {"keep": 0.8, "chunk": 4},
    }
    (inputs / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    text = {key: recipe[key] for key in ("vocabulary", "concepts", "extract")}
    text |= {"generate": None, "language_model": {"layers": 1}}
    (inputs / "text.yaml").write_text(yaml.safe_dump(text))
    (inputs / "captions.txt").write_text("\n".join(CAPTIONS))
    (inputs / "repeated.txt").write_text("\n".join(CAPTIONS * 2))
    photos = inputs / "photos"
    photos.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")


def writer(function: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """Register a writer by its name."""
    WRITERS[function.__name__] = function
    return function


def command(name: str, *words: object) -> None:
    """Run a command in this process."""
    cli.main([name, *map(str, words)])


@writer
def dataset(out: Path, inputs: Path) -> None:
    """Write a corpus, vocabulary, concepts, images, feature stores, pairs and configs."""
    words = [inputs / "captions.txt", "--recipe", inputs / "tiny.yaml", "--device", "cpu"]
    command("make-dataset", *words, "--out", out / "data")
    store = out / "data" / "train_store"
    command("refine", store, "--method", "contrast", "--out", out / "contrast")
    command("store", "export", store, "--out", out / "npz")
    words = ["--captions", "none", "--model", f"local-dir:{inputs / 'clip'}", "--device", "cpu"]
    command("extract", inputs / "photos", *words, "--out", out / "real")
    command("store", "merge", store, out / "real", "--prefix-ids", "--out", out / "merged")
    command("refine", store, "--pool", out / "real", "--out", out / "pool", "--device", "cpu")
    words = ["--pipeline", inputs / "pipeline", "--steps", 2, "--device", "cpu", "--unique"]
    command("generate", inputs / "repeated.txt", *words, "--out", out / "unique")
    images = out / "data" / "synthetic"
    command("store", "sheet", store, "--images", images, "--out", out / "pairs.png")


@writer
def captions_alone(out: Path, inputs: Path) -> None:
    """Write a corpus with a language model, features of captions alone, and their configs."""
    words = [inputs / "captions.txt", "--recipe", inputs / "text.yaml", "--device", "cpu"]
    command("make-dataset", *words, "--out", out / "data")


@writer
def corpus_files(out: Path, inputs: Path) -> None:
    """Write caption files, vocabularies and concept files."""
    from pcm_plugin.formats.coco import write_coco_captions

    write_coco_captions(out / "coco.json", [(i, f"{i}.png", [c]) for i, c in enumerate(CAPTIONS)])
    command("convert-captions", out / "coco.json", "--out", out / "captions.jsonl")
    command("build-vocabulary", out / "coco.json", "--min-count", 1, "--out", out / "words.txt")
    options = ["--kind", "subword", "--size", 60, "--min-count", 1]
    command("build-vocabulary", out / "coco.json", *options, "--out", out / "tokenizer.json")
    words = ["--out-words", out / "concepts.txt", "--min-count", 1]
    words += ["--model", f"local-dir:{inputs / 'clip'}"]
    out_file = ["--out", out / "concepts.safetensors"]
    command("build-concepts", "--captions", out / "coco.json", *words, *out_file)


@writer
def imported_images(out: Path, inputs: Path) -> None:
    """Write image shards from a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = (inputs / "photos" / "0.png").read_bytes()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": image, "path": "x.png"}] * 3, kind)
    pq.write_table(pa.table({"image": rows, "text": CAPTIONS[:3]}), out / "in.parquet")
    command("import-images", out / "in.parquet", "--out", out / "shards")
    (out / "in.parquet").unlink()


@writer
def captioner(out: Path, inputs: Path) -> None:
    """Write captioner files with their CLIP, and a converted checkpoint."""
    from pcm_plugin.apis.zoo import find_weights
    from pcm_plugin.models.captioner_file import load_captioner, save_captioner
    from pcm_plugin.registry import MODELS
    from pcm_plugin.synthesis.pipeline.language_model import build_gpt2

    path = find_weights(NAME)
    with safe_open(path, "pt") as file:
        settings = json.loads(file.metadata()["model"])
    clip = {"model_name": f"local-dir:{inputs / 'clip'}"}
    save_captioner(out / "captioner.safetensors", load_captioner(path), settings, clip, {"b": 1})
    build_gpt2(CAPTIONS, out / "gpt2", layers=1, width=16, heads=2)
    settings = {
        "type": "pcm_plugin.PrefixCaptioner",
        "neck": {"type": "pcm_plugin.GlobalPrefix", "clip_dim": 8, "embed_dims": 16},
        "mapper": {
            "type": "pcm_plugin.PrefixMapper",
            **{"embed_dims": 16, "prefix_length": 2, "num_layers": 1, "num_heads": 2},
        },
        "language_model": str(out / "gpt2"),
        "pretrained": False,
    }
    torch.manual_seed(0)
    save_captioner(out / "prefix.safetensors", MODELS.build(settings), settings, clip)
    parity = Path("tests/data/parity/b32_small")
    words = [parity / "official_state_dict.safetensors", out / "converted.safetensors"]
    command("convert-pcmnet-checkpoint", *words, "--vocabulary", parity / "vocabulary.txt")


@writer
def captions(out: Path, inputs: Path) -> None:
    """Write the results of captioning and scoring."""
    words = [NAME, inputs / "photos", "--num-captions", 2, "--device", "cpu"]
    words += ["--out", out / "results.json", "--sheet", out / "sheet.png"]
    command("caption", *words, "--html", out / "page.html")
    references = [{"image_id": i, "caption": c} for i in range(3) for c in CAPTIONS[:2]]
    (out / "references.json").write_text(
        json.dumps(
            {
                "images": [{"id": i, "file_name": f"{i}.png"} for i in range(3)],
                "annotations": [{"id": n, **row} for n, row in enumerate(references)],
            }
        )
    )
    scores = ["--scorers", "BLEU", "CIDEr", "--out", out / "scores.json"]
    files = [out / "results.json", out / "references.json"]
    command("score", *files, *scores, "--per-image", out / "each.json")
    (out / "predictions.csv").write_text("image,caption\n0.png,a dog\n1.png,a cat\n")
    results = ["--results", "--out", out / "converted.json"]
    command("convert-captions", out / "predictions.csv", *results)


@writer
def comparison(out: Path, inputs: Path) -> None:
    """Write the tables, captions and page of a comparison."""
    from tests.image_text_models import build_model

    rows = [{"image_id": i, "caption": caption} for i, caption in enumerate(CAPTIONS[:3])]
    (out / "other.json").write_text(json.dumps(rows))
    model = build_model(out / "model", "git")
    words = ["--with", model, out / "other.json", "--images", inputs / "photos"]
    words += ["--device", "cpu", "--captions", out / "captions", "--html", out / "page.html"]
    command("compare", NAME, *words, "--out", out / "all.csv", "--scores", out / "scores.jsonl")
    for file in model.iterdir():
        file.unlink()


@writer
def report(out: Path, inputs: Path) -> None:
    """Write the report of a training: charts, images, tables."""
    from pcm_plugin.formats.atomic_io import write_bytes
    from pcm_plugin.visualization import SheetEntry
    from pcm_plugin.visualization.report import RunLog, ScoredEntry, TrainingPair, report_page

    image = Image.open(inputs / "photos" / "0.png").convert("RGB")
    entry = SheetEntry(image, "a dog", ["the dog"], [("dog", 0.75)], [(3, "dog")], "one")
    run = RunLog(
        train=[{"step": step, "loss": 3 - step / 9} for step in range(9)],
        validation=[{"step": 1, "caption/CIDEr": 50.0}, {"step": 2, "caption/CIDEr": 60.0}],
        tests={"test": {"caption/CIDEr": 61.0}},
    )
    scores = np.random.default_rng(0).normal(1.4, 0.2, 500)
    page = report_page(
        "run", run, "model = dict()", (2, 2), "best.pth", [ScoredEntry(entry, 9.0)], scores,
        [TrainingPair(image, "low", 0.3)], [TrainingPair(image, "high", 1.9)], ["note"],
    )  # fmt: skip
    write_bytes(out / "report.html", page.encode())


@writer
def toy_world(out: Path, inputs: Path) -> None:
    """Write images, captions and scenes of the toy world."""
    from pcm_plugin.toyworld.world import build_world

    build_world(out / "town", "town", {"train": 3, "val": 2, "test": 2}, 0, workers=1)


@writer
def tensors(out: Path, inputs: Path) -> None:
    """Write tensors with several metadata keys."""
    from pcm_plugin.formats.tensor_file import write_tensors

    metadata = {f"key{i}": str(i) for i in range(8)}
    write_tensors(out / "x.safetensors", {"b": torch.ones(2), "a": np.arange(3)}, metadata)


def main() -> None:
    """Run each writer in its own subfolder."""
    out, inputs = map(Path, sys.argv[1:])
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name, write in WRITERS.items():
        (out / name).mkdir(parents=True)
        stdout, sys.stdout = sys.stdout, io.StringIO()
        try:
            write(out / name, inputs)
        finally:
            sys.stdout = stdout
        print(name, flush=True)


if __name__ == "__main__":
    main()
