"""From a file of captions to all that a training needs, in one folder.

``DIR`` gets, stage by stage:

- ``corpus/``: ``captions.jsonl``, ``vocabulary.txt``, ``concepts.txt``, ``concepts.safetensors``;
- ``synthetic/``: shards of images;
- ``train_store/``: their features; ``val_store/`` and ``test_store/``, those of real images;
- ``assign_store/``: features of the model that assigns captions, where the recipe has one;
- ``pairs/``: the chosen pairs, where the recipe refines;
- ``dataset.json``: what ``configs/pcm_custom.py`` reads.

Every stage can be killed and run again, and be shared by several processes, which wait for each
other after each stage.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import write_bytes, write_json
from pcm_plugin.formats.captions.caption_file import Caption, CaptionFile, write_jsonl
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.formats.vocabulary_coverage import VocabularyCoverage
from pcm_plugin.formats.word_list import read_word_list
from pcm_plugin.models.backbones.clip_weights import model_identity, weights_identity
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.synthesis.concepts.embedding import embed_concepts, prompts
from pcm_plugin.synthesis.concepts.nouns import STOP_WORDS, find_nouns
from pcm_plugin.synthesis.extract.extract import extract
from pcm_plugin.synthesis.extract.sources import GeneratedImages, Source, open_source
from pcm_plugin.synthesis.generate.generate import generate
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.refine.pairs import PAIRS, refine
from pcm_plugin.synthesis.refine.sentence_encoder import SentenceEncoder
from pcm_plugin.synthesis.sharing import share

CORPUS_FORMAT = "pcm-corpus"
RealImages = Mapping[str, tuple[str, "str | CaptionFile"]]
STAGES = ("corpus", "generate", "extract", "refine")

_TOP_CONCEPTS = 5


def make_dataset(
    captions: CaptionFile,
    recipe: Recipe,
    out: Path,
    stages: Sequence[str] = STAGES,
    real: RealImages | None = None,
    limit: int | None = None,
    device: str | None = None,
    rank: Rank | None = None,
) -> None:
    """Run the stages in their order; what is there already is not made again.

    With captions added at the end of the file, or a greater ``limit``, vocabulary and concepts are
    made anew, and images and features of those that are new.

    Args:
        captions: The corpus.
        recipe: The settings.
        out: The folder.
        stages: Which of :data:`STAGES` to run. Defaults to all.
        real: ``'val'`` and ``'test'`` to a folder of real images and a caption file that names
            them. A path is read with the same options as ``captions``, see :func:`captions_of`.
        limit: Take only the first captions.
        device: Where to work. Defaults to a GPU if there is one.
        rank: Which of several processes this is. Defaults to what torchrun or srun say.

    Raises:
        MissingFileError: If an input is missing.
        UserError: If an input is not what it should be, or the folder was made with other
            settings or captions; the difference is named.
    """
    rank = rank or Rank.from_environment()
    # All inputs are looked at before the first stage begins its hours of work.
    sources = real_sources(real or {}, recipe, captions)
    make_corpus(captions, recipe, out / "corpus", limit, rank, make="corpus" in stages)
    if "generate" in stages:
        corpus = CaptionFile(out / "corpus" / "captions.jsonl")
        images, batch = out / "synthetic", recipe.generate_batch
        generate(corpus, recipe.generate, images, batch, device, None, rank, recipe.offload)
    if "extract" in stages:
        sources["train"] = open_source(out / "synthetic", None, 1)
        for split, source in sources.items():
            store, batch = out / f"{split}_store", recipe.extract_batch
            extract(source, recipe.extract, store, batch, device, rank=rank)
        if recipe.assign is not None:
            store, batch = out / "assign_store", recipe.assign_batch
            extract(sources["train"], recipe.assign, store, batch, device, rank=rank)
    if "refine" in stages and recipe.refine is not None:
        refine(
            out / "train_store",
            recipe.refine,
            out / "pairs",
            chunk=recipe.refine_chunk,
            device=device,
            rank=rank,
            assign_store=None if recipe.assign is None else out / "assign_store",
        )
    if rank.index == 0 and _is_through(recipe, out):
        write_json(out / "dataset.json", describe(recipe, out))


def real_sources(real: RealImages, recipe: Recipe, captions: CaptionFile) -> dict[str, Source]:
    """Open the real images of ``'val'`` and ``'test'``, and read their captions.

    Args:
        real: See :func:`make_dataset`.
        recipe: The settings.
        captions: The corpus, with whose options paths of caption files are read.

    Raises:
        MissingFileError: If a folder, a file, or all of the first images are missing.
        UserError: If captions cannot be read, or name no images.
    """
    sources = {}
    for split, (images, file) in real.items():
        named = file if isinstance(file, CaptionFile) else captions_of(split, file, captions)
        sources[split] = open_source(images, named, recipe.generate.shard_size)
    return sources


def captions_of(split: str, path: str, captions: CaptionFile) -> CaptionFile:
    """Return a caption file of real images, read with the same options as the corpus.

    Args:
        split: The split to read if the file has splits.
        path: The file.
        captions: The corpus, see
            :meth:`~pcm_plugin.formats.captions.caption_file.CaptionFile.with_path`.
    """
    file = captions.with_path(path)
    return replace(file, split=split) if file.has_splits() else file


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
        MissingFileError: If it is not there.
        UserError: If it was made of other captions or with other settings.
    """
    # How the file was read is not among them: the captions themselves are compared.
    settings = recipe.corpus_record()
    there = ShardFolder(out, CORPUS_FORMAT).shards if (out / "manifest.json").is_file() else {}
    before = there.get("corpus", {"num_source": 0, "digest": None})
    count, digest, begins = _digests(captions, limit, before["num_source"])
    if not make:
        if not there:
            raise MissingFileError(f"no finished corpus in {out}: run the stage corpus too")
        ShardFolder.check_settings(out, CORPUS_FORMAT, settings)
        if before["digest"] != digest:
            raise UserError(f"{out} was made of other captions: run the stage corpus too")
        return
    ShardFolder.check_settings(out, CORPUS_FORMAT, settings)
    # Before anything is made anew: another file, given by mistake, must change nothing.
    if there and before["digest"] != begins:
        raise UserError(
            f"{out} was made of {before['num_source']:,} captions that are not the first of those "
            "given now: give the old ones, with others after them if you like, or another folder"
        )
    wanted = [Shard("corpus", count, digest)]
    folder = ShardFolder.open_for_write(out, CORPUS_FORMAT, settings, wanted)
    for _, tick in share(folder, wanted, rank, "corpus", "caption"):
        # Until all stages are through again, the folder is none to train on.
        (out.parent / "dataset.json").unlink(missing_ok=True)
        # With the settings of the extraction, so that wrong ones are said before the painting.
        extracting = recipe.extract
        clip = OpenCLIPBackbone(extracting.model, extracting.pretrained, extracting.pool)
        _check_refinement(recipe)
        written = write_jsonl(captions, out / "captions.jsonl", limit)
        corpus = CaptionFile(out / "captions.jsonl")
        vocabulary, coverage, words = find_words(corpus, recipe)
        print(f"vocabulary: {coverage}", flush=True)
        vocabulary.to_file(out / "vocabulary.txt")
        write_bytes(out / "concepts.txt", "".join(f"{word}\n" for word in words).encode())
        templates = prompts(recipe.concepts.templates)
        embeddings = embed_concepts(words, clip, templates)
        concepts, model = out / "concepts.safetensors", model_identity(extracting.model)
        weights = weights_identity(extracting.pretrained)
        save_concepts(concepts, words, embeddings, model, weights, templates)
        files = ["captions.jsonl", "vocabulary.txt", "concepts.txt", "concepts.safetensors"]
        tick(written)
        folder.commit(wanted[0], files, written)


def _check_refinement(recipe: Recipe) -> None:
    """Load the models that refining needs, so that missing ones are reported before generation."""
    if recipe.assign is not None:
        OpenCLIPBackbone(recipe.assign.model, recipe.assign.pretrained, recipe.assign.pool)
    if recipe.refine is not None and recipe.refine.sentence_encoder is not None:
        SentenceEncoder(recipe.refine.sentence_encoder, recipe.refine.pooling).encode(["a dog"])


def _digests(captions: CaptionFile, limit: int | None, first: int) -> tuple[int, str, str]:
    """Count of the captions, a name of their content, and one of the ``first`` of them."""
    content, count, begins = hashlib.sha256(), 0, ""
    for count, caption in enumerate(itertools.islice(captions, limit), start=1):
        content.update(json.dumps(caption).encode())
        if count == first:
            begins = content.hexdigest()[:16]
    return count, content.hexdigest()[:16], begins


def find_words(
    captions: Iterable[Caption], recipe: Recipe
) -> tuple[Vocabulary, VocabularyCoverage, list[str]]:
    """Return the captioner's vocabulary, its coverage of the corpus, and the concepts' words.

    Args:
        captions: The corpus, read two or three times.
        recipe: The settings.

    Raises:
        UserError: If there are too few words or concepts, or too many captions have no word of
            the vocabulary; names the setting to change.
    """
    want, look_for = recipe.vocabulary, recipe.concepts
    try:
        vocabulary = (
            Vocabulary.build((c.text for c in captions), want.min_count, want.unk)
            if want.file is None
            else Vocabulary.from_file(want.file)
        )
    except ValueError as error:
        raise UserError(f"{error} (--set vocabulary.min_count=1)") from None
    coverage = VocabularyCoverage.measure(vocabulary, (c.text for c in captions))
    source, fix = f"vocabulary.min_count={want.min_count}", "--set vocabulary.min_count=1"
    if want.file is not None:
        source, fix = f"vocabulary.file={want.file}", "Use another vocabulary.file"
    coverage.check(
        want.max_unknown_captions,
        source,
        f"{fix}, or accept them with --set vocabulary.max_unknown_captions=SHARE",
    )
    if look_for.words is not None:
        words = read_word_list(look_for.words)
    else:
        stop_list = look_for.stop_list
        try:
            nouns = find_nouns(
                (caption.text for caption in tqdm(captions, desc="nouns", unit="caption")),
                look_for.min_count,
                max_nouns=look_for.max_nouns,
                stop_words=STOP_WORDS if stop_list is None else read_word_list(stop_list),
                phrases=look_for.phrases,
            )
        except ValueError as error:
            raise UserError(
                f"{error} (--set concepts.min_count=1, or concepts.words=FILE)"
            ) from None
        words = [noun.word for noun in nouns]
    needed = recipe.model.get("neck", {}).get("top_concepts", _TOP_CONCEPTS)
    if len(words) < needed:
        raise UserError(
            f"{len(words)} concepts ({', '.join(words)}), but the model looks for the {needed} "
            f"nearest to an image: lower concepts.min_count ({look_for.min_count}), give a list as "
            f"concepts.words, or --set model.neck.top_concepts={len(words)}"
        )
    return vocabulary, coverage, words


def _is_through(recipe: Recipe, out: Path) -> bool:
    """Whether images and features are those of all captions of the corpus."""
    parts = [out / name for name in ("corpus", "synthetic", "train_store")]
    if not all(map(_is_complete, parts)):
        return False
    corpus, images, store = (ShardFolder(part, None).shards.values() for part in parts)
    captions = sum(record["count"] for record in corpus)
    wanted = captions * recipe.generate.images_per_caption
    try:
        generated = GeneratedImages(out / "synthetic")
    except ValueError:
        return False
    missing = sum(r["num_source"] - r["count"] for r in images)
    available = sum(shard.count for shard in generated.shards)
    return (available + missing, sum(r["num_source"] for r in store)) == (wanted, available)


def _is_complete(path: Path) -> bool:
    return (path / "manifest.json").is_file() and ShardFolder(path, None).complete


def describe(recipe: Recipe, out: Path) -> dict[str, Any]:
    """What ``configs/pcm_custom.py`` needs to know of a folder."""
    store = FeatureStore(out / "train_store")
    pairs = out / "pairs" / PAIRS
    refined = recipe.refine is not None and pairs.is_file()
    found: dict[str, Any] = {"patch_dim": store.patch_dim, "clip_dim": store.clip_dim}
    found["num_patches"] = store.num_patches
    if store.patches_in_joint_space:
        found |= {"patches_in_joint_space": True, "clip_head": None}
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
        "real": [s for s in ("val", "test") if _is_complete(out / f"{s}_store")],
    }
