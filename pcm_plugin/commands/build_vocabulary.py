"""Build a vocabulary from the frequent words of captions.

    pcm build-vocabulary CAPTIONS --min-count 5 --out vocabulary.txt

The released vocabularies were counted over all splits and end with UNK, which replaces rare words:

    pcm build-vocabulary dataset_coco.json --split all --unk --out vocabulary.txt
"""

import argparse

from pcm_plugin.commands.caption_arguments import add_caption_arguments, caption_file
from pcm_plugin.errors import plain_errors
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.formats.vocabulary_coverage import MAX_UNKNOWN_CAPTIONS, VocabularyCoverage


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser)
    parser.add_argument("--min-count", type=int, default=5, help="minimum number of occurrences")
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
    captions, report = caption_file(args)
    print(report, flush=True)
    vocabulary = Vocabulary.build((c.text for c in captions), args.min_count, args.unk)
    coverage = VocabularyCoverage.measure(vocabulary, (c.text for c in captions))
    fix = "Lower --min-count, or accept them with --max-unknown-captions"
    coverage.check(args.max_unknown_captions, args.captions, fix)
    vocabulary.to_file(args.out)
    print(f"{args.out}: {len(vocabulary.words)} words; {coverage}")
