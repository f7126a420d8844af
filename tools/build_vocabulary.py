"""Count the words of a caption file and keep the frequent ones as a captioner's vocabulary.

python tools/build_vocabulary.py CAPTIONS --min-count 5 --out vocabulary.txt
"""

import argparse

from pcm_plugin.datasets.vocabulary import Vocabulary
from pcm_plugin.plain_errors import plain_errors
from pcm_plugin.synthesis.arguments import add_caption_arguments, caption_file


def main() -> None:
    """Read the command line and count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser)
    parser.add_argument("--min-count", type=int, default=5, help="how often a word must occur")
    parser.add_argument("--out", required=True, help="vocabulary file to write")
    args = parser.parse_args()
    captions, report = caption_file(args)
    print(report, flush=True)
    texts = (caption.text for caption in captions)
    vocabulary = Vocabulary.build(texts, args.min_count)
    vocabulary.to_file(args.out)
    print(f"{args.out}: {len(vocabulary.words)} words")


if __name__ == "__main__":
    with plain_errors():
        main()
