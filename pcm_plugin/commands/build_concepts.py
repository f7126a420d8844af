"""Build a concept file: words and their CLIP text embeddings.

    pcm build-concepts WORDS --model local-dir:CLIP --out concepts.safetensors
    pcm build-concepts --captions CAPTIONS --model ... --out concepts.safetensors
    pcm build-concepts --captions CAPTIONS --out-words words.txt

WORDS is a text file with one word, or short phrase, per line, or a JSON list of them (or an object
that maps class names to their numbers, as VinVL's). With --captions the words are the
frequent nouns of English captions; --out-words writes them to a text file for review. For captions
in another language, --tagger names a function of yours that finds nouns.
"""

import argparse
from pathlib import Path

from pcm_plugin.commands.caption_arguments import add_caption_arguments, caption_file
from pcm_plugin.errors import plain_errors
from pcm_plugin.formats.word_list import read_word_list, write_word_list
from pcm_plugin.synthesis.concepts.tagger import find_concepts
from pcm_plugin.synthesis.concepts.templates import TEMPLATES, resolve_templates


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="?", help="text file with one word per line, or JSON list")
    parser.add_argument("--out", help="concept file to write")
    parser.add_argument("--model", help="open_clip name, or local-dir:FOLDER")
    parser.add_argument("--pretrained", help="its weights: open_clip's tag, or a file")
    parser.add_argument(
        "--templates",
        nargs="+",
        default=TEMPLATES,
        help="prompts to average over, each with {} for the word, or a prompt set of open_clip: "
        "simple (7 prompts) or openai (80) (default: 'A photo of {}', as in the paper)",
    )
    nouns = parser.add_argument_group("nouns of captions")
    add_caption_arguments(nouns, option=True)
    nouns.add_argument("--min-count", type=int, default=5, help="minimum number of occurrences")
    nouns.add_argument(
        "--max-nouns", type=int, default=500, help="keep only the most frequent nouns"
    )
    nouns.add_argument(
        "--stop-list",
        help="file of nouns to omit, one per line (default: a list of nouns for positions, amounts "
        "and images; none with --tagger)",
    )
    nouns.add_argument(
        "--tagger",
        metavar="MODULE:FUNCTION",
        help="function that takes a list of captions and returns a list of the nouns of each, from "
        "a module of the environment or the current folder (default: an English tagger)",
    )
    nouns.add_argument(
        "--phrases", action="store_true", help="include pairs of nouns, such as tennis court"
    )
    nouns.add_argument(
        "--out-words", type=Path, help="text file of the words to write, one per line"
    )
    parser.add_argument(
        "--compare-with", help="concept file or word list with which the words are compared"
    )
    args = parser.parse_args()
    if (args.words is None) == (args.captions is None):
        parser.error("pass either WORDS or --captions CAPTIONS")
    if args.tagger is not None and args.captions is None:
        parser.error("--tagger needs --captions")
    if args.out is None and args.out_words is None and args.compare_with is None:
        parser.error("pass --out with --model, --out-words, or --compare-with")
    if args.out is not None and args.model is None:
        parser.error("--out needs --model, the CLIP that embeds the words")
    return args


def words_of(args: argparse.Namespace) -> list[str]:
    """Return the words of the list, or the nouns of the captions."""
    if args.captions is None:
        return read_word_list(args.words)
    from tqdm import tqdm

    captions, report = caption_file(args)
    print(report, flush=True)
    nouns = find_concepts(
        (caption.text for caption in tqdm(captions, "nouns", report.captions, unit="caption")),
        args.tagger,
        args.min_count,
        args.max_nouns,
        read_word_list(args.stop_list) if args.stop_list else None,
        args.phrases,
    )
    first, last = nouns[0], nouns[-1]
    print(
        f"{len(nouns)} nouns, from {first.word} ({first.count:,}) to {last.word} ({last.count:,})"
    )
    return [noun.word for noun in nouns]


def compare(words: list[str], path: str) -> None:
    """Print which words two lists have in common, and which are only in one."""
    from pcm_plugin.formats.concept_set import load_concepts

    is_concept_file = path.endswith(".safetensors")
    other = load_concepts(path).words if is_concept_file else read_word_list(path)
    shared = set(words) & set(other)
    print(f"{len(words)} words here, {len(other)} in {path}, {len(shared)} in both")
    print(f"only here: {', '.join(word for word in words if word not in shared)}")
    print(f"only there: {', '.join(word for word in other if word not in shared)}")


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    words = words_of(args)
    if args.out_words is not None:
        args.out_words.parent.mkdir(parents=True, exist_ok=True)
        write_word_list(args.out_words, words)
        print(f"{args.out_words}: {len(words)} words")
    if args.compare_with is not None:
        compare(words, args.compare_with)
    if args.out is None:
        return
    from pcm_plugin.formats.concept_set import save_concepts
    from pcm_plugin.models.backbones.clip_weights import model_identity
    from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
    from pcm_plugin.models.backbones.weights_file import weights_identity
    from pcm_plugin.synthesis.concepts.embedding import embed_concepts

    templates = resolve_templates(args.templates)
    clip = OpenCLIPBackbone(args.model, args.pretrained)
    embeddings = embed_concepts(words, clip, templates)
    identity = model_identity(args.model)
    weights = weights_identity(args.pretrained)
    save_concepts(args.out, words, embeddings, identity, weights, templates)
    print(f"{args.out}: {len(words)} concepts of {identity}")
