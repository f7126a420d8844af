"""Corpus of a data set: its captions, vocabulary and concepts."""

import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.caption_vocabulary import CaptionVocabulary
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.lines import write_jsonl
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.formats.vocabulary_coverage import VocabularyCoverage
from pcm_plugin.formats.word_list import read_word_list, write_word_list
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.synthesis.concepts.embedding import embed_concepts
from pcm_plugin.synthesis.concepts.tagger import find_concepts
from pcm_plugin.synthesis.concepts.templates import resolve_templates
from pcm_plugin.synthesis.pipeline.corpus_settings import LanguageModelSettings
from pcm_plugin.synthesis.pipeline.dataset_config import remove_configs
from pcm_plugin.synthesis.pipeline.language_model import build_gpt2
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.refine.sentence_encoder import SentenceEncoder
from pcm_plugin.synthesis.sharing import claim_shards

logger = logging.getLogger(__name__)

CORPUS_FORMAT = "pcm-corpus"

LANGUAGE_MODEL = "language_model"
"""Folder of the small GPT-2 of a text recipe, in that of the corpus."""


def make_corpus(
    captions: CaptionFile,
    recipe: Recipe,
    out: Path,
    limit: int | None,
    rank: Rank,
    make: bool = True,
) -> None:
    """Copy the captions, and derive vocabulary, concepts and any language model from them.

    Args:
        captions: The corpus.
        recipe: The recipe.
        out: Folder to write.
        limit: Use only the first ``limit`` captions. None uses all.
        rank: Rank of this process.
        make: Whether to make the corpus. If False, only check that it exists and was made from
            these captions with these settings. Defaults to True.

    Raises:
        MissingFileError: If it does not exist and ``make`` is False.
        UserError: If it was made from other captions or with other settings.
    """
    # The reading options are not among them, because the captions themselves are compared.
    settings = recipe.corpus_record()
    there = ShardFolder(out, CORPUS_FORMAT).shards if (out / "manifest.json").is_file() else {}
    before = there.get("corpus", {"num_source": 0, "digest": None})
    count, digest, begins = _digests(captions, limit, before["num_source"])
    if not make:
        if not there:
            raise MissingFileError(
                f"there is no finished corpus in {out}: run the stage corpus too"
            )
        ShardFolder.check_settings(out, CORPUS_FORMAT, settings)
        if before["digest"] != digest:
            raise UserError(f"{out} was made from other captions: run the stage corpus too")
        return
    ShardFolder.check_settings(out, CORPUS_FORMAT, settings)
    # Checked before anything is overwritten: a file that was passed by mistake changes nothing.
    if there and before["digest"] != begins:
        raise UserError(
            f"{out} was made from {before['num_source']:,} captions that are not the first ones of "
            "this file: pass the same captions, optionally with others appended, or use another "
            "folder"
        )
    wanted = [Shard("corpus", count, digest)]
    folder = ShardFolder.open_for_write(out, CORPUS_FORMAT, settings, wanted)
    for _, tick in claim_shards(folder, wanted, rank, "corpus", "caption"):
        # The data set cannot be trained on until all stages have been run again.
        remove_configs(out.parent)
        # Built with the settings of the extraction, so wrong ones are reported before generation.
        extracting = recipe.extract
        clip = extracting.load_clip()
        _check_refinement(recipe)
        written = write_jsonl(itertools.islice(captions, limit), out / "captions.jsonl")
        corpus = CaptionFile(out / "captions.jsonl")
        vocabulary, coverage, words = find_words(corpus, recipe)
        logger.info("vocabulary: %s", coverage)
        vocabulary_file = recipe.vocabulary.file_name
        vocabulary.to_file(out / vocabulary_file)
        write_word_list(out / "concepts.txt", words)
        templates = resolve_templates(recipe.concepts.templates)
        embeddings = embed_concepts(words, clip, templates)
        concepts, model = out / "concepts.safetensors", model_identity(extracting.model)
        weights = weights_identity(extracting.pretrained)
        save_concepts(concepts, words, embeddings, model, weights, templates)
        files = ["captions.jsonl", vocabulary_file, "concepts.txt", "concepts.safetensors"]
        if recipe.language_model is not None:
            files += _make_language_model(corpus, recipe.language_model, out / LANGUAGE_MODEL)
        tick(written)
        folder.commit(wanted[0], files, written)


def _make_language_model(
    corpus: Iterable[Caption], settings: LanguageModelSettings, folder: Path
) -> list[str]:
    """Build the language model of a text recipe, and return its files relative to the corpus."""
    shutil.rmtree(folder, ignore_errors=True)  # that of fewer captions
    build_gpt2((caption.text for caption in corpus), folder, **settings.__dict__)
    return sorted(f"{folder.name}/{file.name}" for file in folder.iterdir())


def _check_refinement(recipe: Recipe) -> None:
    """Load the models of the refinement, so that missing ones are reported before generation."""
    if recipe.assign is not None:
        recipe.assign.load_clip()
    if recipe.refine is not None and recipe.refine.sentence_encoder is not None:
        SentenceEncoder(recipe.refine.sentence_encoder, recipe.refine.pooling).encode(["a dog"])


def _digests(captions: CaptionFile, limit: int | None, first: int) -> tuple[int, str, str]:
    """Return the number of captions, their digest, and the digest of the ``first`` ones."""
    content, count, begins = hashlib.sha256(), 0, ""
    for count, caption in enumerate(itertools.islice(captions, limit), start=1):
        content.update(json.dumps(caption).encode())
        if count == first:
            begins = content.hexdigest()[:16]
    return count, content.hexdigest()[:16], begins


def find_words(
    captions: Iterable[Caption], recipe: Recipe
) -> tuple[CaptionVocabulary, VocabularyCoverage, list[str]]:
    """Return the vocabulary, its coverage of the corpus, and the words of the concepts.

    Args:
        captions: The corpus, read two or three times.
        recipe: The recipe.

    Raises:
        UserError: If there are too few words or concepts, or too many captions have no word of the
            vocabulary. The message names the setting to change.
    """
    settings, concepts = recipe.vocabulary, recipe.concepts
    try:
        vocabulary = settings.build(caption.text for caption in captions)
    except UserError as error:
        is_word = settings.kind == "word"
        fix = "vocabulary.min_count=1" if is_word else "vocabulary.size=N vocabulary.min_count=N"
        raise UserError(f"{error} (--set {fix})") from None
    coverage = VocabularyCoverage.measure(vocabulary, (c.text for c in captions))
    source, fix = f"vocabulary.min_count={settings.min_count}", "--set vocabulary.min_count=1"
    if settings.file is not None:
        source, fix = f"vocabulary.file={settings.file}", "Use another vocabulary.file"
    coverage.check(
        settings.max_unknown_captions,
        source,
        f"{fix}, or accept them with --set vocabulary.max_unknown_captions=SHARE",
    )
    if concepts.words is not None:
        words = read_word_list(concepts.words)
    else:
        stop_list = concepts.stop_list
        try:
            nouns = find_concepts(
                (caption.text for caption in tqdm(captions, desc="nouns", unit="caption")),
                concepts.tagger,
                concepts.min_count,
                concepts.max_nouns,
                None if stop_list is None else read_word_list(stop_list),
                concepts.phrases,
            )
        except UserError as error:
            raise UserError(
                f"{error} (--set concepts.min_count=1, or concepts.words=FILE)"
            ) from None
        words = [noun.word for noun in nouns]
    setting, needed = recipe.top_concepts
    if len(words) < needed:
        raise UserError(
            f"there are {len(words)} concepts ({', '.join(words)}), but the model uses the "
            f"{needed} nearest ones of an image: lower concepts.min_count "
            f"({concepts.min_count}), set concepts.words to a list, or --set "
            f"{setting}={len(words)}"
        )
    return vocabulary, coverage, words
