"""Corpus of a data set: its captions, vocabulary and concepts."""

import hashlib
import itertools
import json
import logging
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.lines import write_jsonl
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.formats.vocabulary_coverage import VocabularyCoverage
from pcm_plugin.formats.word_list import read_word_list, write_word_list
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.synthesis.concepts.embedding import embed_concepts, resolve_templates
from pcm_plugin.synthesis.concepts.nouns import STOP_WORDS, find_nouns
from pcm_plugin.synthesis.pipeline.dataset_config import remove_configs
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.refine.sentence_encoder import SentenceEncoder
from pcm_plugin.synthesis.sharing import claim_shards

logger = logging.getLogger(__name__)

CORPUS_FORMAT = "pcm-corpus"

_TOP_CONCEPTS = 5


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
    for _, tick in claim_shards(folder, wanted, rank, "corpus", "caption"):
        # The data set cannot be trained on until all stages have been run again.
        remove_configs(out.parent)
        # With the settings of the extraction, so that wrong ones are said before the painting.
        extracting = recipe.extract
        clip = OpenCLIPBackbone(extracting.model, extracting.pretrained, extracting.pool)
        _check_refinement(recipe)
        written = write_jsonl(itertools.islice(captions, limit), out / "captions.jsonl")
        corpus = CaptionFile(out / "captions.jsonl")
        vocabulary, coverage, words = find_words(corpus, recipe)
        logger.info("vocabulary: %s", coverage)
        vocabulary.to_file(out / "vocabulary.txt")
        write_word_list(out / "concepts.txt", words)
        templates = resolve_templates(recipe.concepts.templates)
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
    except UserError as error:
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
        except UserError as error:
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
