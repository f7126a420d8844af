"""Build a vocabulary of the words of captions, or of pieces of words.

    pcm build-vocabulary CAPTIONS --min-count 5 --out vocabulary.txt

The released vocabularies were counted over all splits and end with UNK, which replaces rare words:

    pcm build-vocabulary dataset_coco.json --split all --unk --out vocabulary.txt

For a language without spaces between words, or with many forms of words, train a subword
vocabulary, the tokenizer.json of the library tokenizers:

    pcm build-vocabulary CAPTIONS --kind subword --size 4000 --out tokenizer.json
"""

import argparse

from pcm_plugin.commands.caption_arguments import add_caption_arguments, caption_file
from pcm_plugin.errors import plain_errors
from pcm_plugin.formats.subword_vocabulary import SIZE
from pcm_plugin.formats.vocabulary_coverage import MAX_UNKNOWN_CAPTIONS, VocabularyCoverage
from pcm_plugin.formats.vocabulary_file import VOCABULARY_FILES
from pcm_plugin.synthesis.pipeline.corpus_settings import VocabularySettings


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser)
    parser.add_argument(
        "--kind",
        choices=[*VOCABULARY_FILES],
        default="word",
        help="whole words, or pieces of words (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=int,
        help=f"for --kind subword: maximum number of pieces and the end token (default: {SIZE})",
    )
    parser.add_argument(
        "--min-count",
        type=int,
        default=5,
        help="minimum number of occurrences of a word, or of a character and a piece",
    )
    parser.add_argument(
        "--unk",
        action="store_true",
        help="append UNK, which replaces rare words (default: rare words are removed)",
    )
    parser.add_argument(
        "--max-unknown-captions",
        type=float,
        default=MAX_UNKNOWN_CAPTIONS,
        metavar="SHARE",
        help="largest accepted share of captions without a word of the vocabulary (default: "
        "%(default)s)",
    )
    parser.add_argument("--out", required=True, help="vocabulary file to write")
    args = parser.parse_args()
    is_subword = args.kind == "subword"
    if args.size is not None and not is_subword:
        parser.error("--size needs --kind subword")
    if args.unk and is_subword:
        parser.error("--unk needs --kind word: a subword vocabulary drops unknown characters")
    if args.out.endswith(".json") != is_subword:
        parser.error(
            f"--out must be {'a' if is_subword else 'no'} .json file for --kind {args.kind}"
        )
    captions, report = caption_file(args)
    print(report, flush=True)
    texts = (caption.text for caption in captions)
    settings = VocabularySettings(
        args.kind, args.size or SIZE, min_count=args.min_count, unk=args.unk
    )
    vocabulary = settings.build(texts)
    coverage = VocabularyCoverage.measure(vocabulary, (c.text for c in captions))
    fix = "Lower --min-count, or accept them with --max-unknown-captions"
    coverage.check(args.max_unknown_captions, args.captions, fix)
    vocabulary.to_file(args.out)
    print(f"{args.out}: {len(vocabulary) - 1} {vocabulary.unit}; {coverage}")
    if is_subword:
        print(f"model.decoding.max_len={coverage.max_len()} fits 99 % of the captions")
