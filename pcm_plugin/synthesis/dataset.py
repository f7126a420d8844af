"""From a file of captions to all that a training needs, in one folder.

``DIR`` gets, stage by stage:

- ``corpus/``: ``captions.jsonl``, ``vocabulary.txt``, ``concepts.txt``, ``concepts.safetensors``;
- ``synthetic/``: shards of images;
- ``train_store/``: their features; ``val_store/`` and ``test_store/``, those of real images;
- ``pairs/``: the chosen pairs, where the recipe refines;
- ``dataset.json``: what ``configs/pcm_custom.py`` reads.

Every stage can be killed and run again, and be shared by several processes, which wait for each
other after each stage.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pcm_plugin.datasets.durable import sha256, write_bytes, write_json
from pcm_plugin.datasets.feature_store import FeatureStore
from pcm_plugin.datasets.shards import Shard, ShardFolder
from pcm_plugin.datasets.vocabulary import Vocabulary
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.synthesis.captions import CaptionFile, write_jsonl
from pcm_plugin.synthesis.concepts import embed_words, save_concepts
from pcm_plugin.synthesis.extract import extract, model_identity
from pcm_plugin.synthesis.generate import generate
from pcm_plugin.synthesis.nouns import find_nouns
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.recipes import Recipe
from pcm_plugin.synthesis.refine import PAIRS, refine
from pcm_plugin.synthesis.sharing import share
from pcm_plugin.synthesis.sources import open_source

CORPUS_FORMAT = "pcm-corpus"
STAGES = ("corpus", "generate", "extract", "refine")


def make_dataset(
    captions: CaptionFile,
    recipe: Recipe,
    out: Path,
    stages: Sequence[str] = STAGES,
    real: dict[str, tuple[str, str]] | None = None,
    limit: int | None = None,
    device: str | None = None,
    rank: Rank | None = None,
) -> None:
    """Run the stages in their order; what is there already is not made again.

    Args:
        captions: The corpus.
        recipe: The settings.
        out: The folder.
        stages: Which of :data:`STAGES` to run. Defaults to all.
        real: ``'val'`` and ``'test'`` to a folder of real images and its COCO captions JSON.
        limit: Take only the first captions.
        device: Where to work. Defaults to a GPU if there is one.
        rank: Which of several processes this is. Defaults to what torchrun or srun say.

    Raises:
        FileNotFoundError: If an input is missing.
        ValueError: If an input is not what it should be, or the folder was made with other
            settings; the difference is named.
    """
    rank = rank or Rank.from_environment()
    # All inputs are looked at before the first stage begins its hours of work.
    sources = {
        split: open_source(images, _of_split(file, split), recipe.generate.shard_size)
        for split, (images, file) in (real or {}).items()
    }
    make_corpus(captions, recipe, out / "corpus", limit, rank, make="corpus" in stages)
    if "generate" in stages:
        corpus = CaptionFile(out / "corpus" / "captions.jsonl")
        generate(
            corpus, recipe.generate, out / "synthetic", recipe.generate_batch, device, rank=rank
        )
    if "extract" in stages:
        sources["train"] = open_source(out / "synthetic", None, 1)
        for split, source in sources.items():
            store, batch = out / f"{split}_store", recipe.extract_batch
            extract(source, recipe.extract, store, batch, device, rank=rank)
    if "refine" in stages and recipe.refine is not None:
        refine(out / "train_store", recipe.refine, out / "pairs", device=device, rank=rank)
    if rank.index == 0 and _is_complete(out / "train_store"):
        write_json(out / "dataset.json", describe(recipe, out))


def make_corpus(
    captions: CaptionFile,
    recipe: Recipe,
    out: Path,
    limit: int | None,
    rank: Rank,
    make: bool = True,
) -> None:
    """Read the captions once for all; take vocabulary and concepts from them.

    Args:
        captions: The corpus.
        recipe: The settings.
        out: Folder to write.
        limit: Take only the first captions.
        rank: Which of several processes this is.
        make: Whether to make it, or to see that it is there, of these captions and settings.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it was made of other captions or with other settings.
    """
    settings: dict[str, Any] = {
        "captions": f"sha256 {sha256(captions.path)[:16]}",
        "limit": limit,
        **{key: getattr(captions, key) for key in ("column", "split", "skip_bad", "max_chars")},
        **asdict(recipe.corpus),
        "model": model_identity(recipe.extract.model),
        "pretrained": recipe.extract.pretrained,
    }
    if not make:
        if not _is_complete(out):
            raise FileNotFoundError(f"no finished corpus in {out}: run the stage corpus too")
        ShardFolder.check(out, CORPUS_FORMAT, settings)
        return
    wanted = [Shard("corpus", 1, "corpus")]
    folder = ShardFolder.resume(out, CORPUS_FORMAT, settings, wanted)
    for _, tick in share(folder, wanted, rank, "corpus", "file"):
        # With the settings of the extraction, so that wrong ones are said before the painting.
        extracting = recipe.extract
        clip = OpenCLIPBackbone(extracting.model, extracting.pretrained, extracting.pool)
        count = write_jsonl(captions, out / "captions.jsonl", limit)
        corpus = CaptionFile(out / "captions.jsonl")
        want = recipe.corpus
        texts = (caption.text for caption in corpus)
        Vocabulary.build(texts, want.min_count).to_file(out / "vocabulary.txt")
        texts = (caption.text for caption in corpus)
        nouns = find_nouns(
            texts, want.min_noun_count, max_nouns=want.max_nouns, phrases=want.phrases
        )
        words = [noun.word for noun in nouns]
        write_bytes(out / "concepts.txt", "".join(f"{word}\n" for word in words).encode())
        embeddings = embed_words(words, clip.clip, clip.tokenizer, want.templates)
        identity, pretrained = settings["model"], settings["pretrained"]
        concepts = out / "concepts.safetensors"
        save_concepts(concepts, words, embeddings, identity, pretrained, want.templates)
        files = ["captions.jsonl", "vocabulary.txt", "concepts.txt", "concepts.safetensors"]
        folder.add(wanted[0], files, count)
        tick(1)


def _of_split(path: str, split: str) -> CaptionFile:
    """A caption file's own split of that name, where it knows any."""
    captions = CaptionFile(Path(path))
    return replace(captions, split=split) if captions.knows_splits() else captions


def _is_complete(path: Path) -> bool:
    if not (path / "manifest.json").is_file():
        return False
    manifest = json.loads((path / "manifest.json").read_text())
    return ShardFolder(path, manifest["format"]).complete


def describe(recipe: Recipe, out: Path) -> dict[str, Any]:
    """What ``configs/pcm_custom.py`` needs to know of a folder."""
    store = FeatureStore(out / "train_store")
    pairs = out / "pairs" / PAIRS
    refined = recipe.refine is not None and pairs.is_file()
    found = {"patch_dim": store.patch_dim, "clip_dim": store.clip_dim}
    found["num_patches"] = store.num_patches
    neck = {**recipe.model.get("neck", {}), **found}
    return {
        "model": {**recipe.model, "neck": neck},
        "clip": {
            "model": os.path.normpath(recipe.extract.model),
            "pretrained": recipe.extract.pretrained,
            "pool": recipe.extract.pool,
        },
        "pairs": store.num_captions,
        "refined": refined,
        "real": [s for s in ("val", "test") if (out / f"{s}_store" / "manifest.json").is_file()],
    }
