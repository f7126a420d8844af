"""Measure the reader, the vocabulary and the noun tagger on a caption file.

    python benchmarks/read_corpus.py Flickr8k.token.txt
    python benchmarks/read_corpus.py Flickr8k.token.txt --compare-with concepts.safetensors

Invalid lines are reported and skipped. The last line is JSON.
"""

import argparse
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from gemm_timing import matrix_gflops, print_json

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.concept_set import load_concepts
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.synthesis.concepts.nouns import find_nouns


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("captions")
    parser.add_argument("--min-count", type=int, default=5, help="minimum count of words and nouns")
    parser.add_argument(
        "--max-nouns",
        type=int,
        default=446,
        help="maximum number of nouns; default: the size of the released list",
    )
    parser.add_argument("--compare-with", help="concept file to compare the nouns with")
    args = parser.parse_args()
    captions = CaptionFile(args.captions, skip_invalid=True)
    texts = [caption.text for caption in captions]
    report, reading = timed(captions.scan)
    vocabulary, counting = timed(lambda: Vocabulary.build(texts, args.min_count))
    nouns, tagging = timed(lambda: find_nouns(texts, args.min_count, max_nouns=args.max_nouns))
    seconds = {"read": reading, "vocabulary": counting, "nouns": tagging}
    print(report)
    print(f"{len(vocabulary.words):,} words occur {args.min_count} times or more")
    print(f"{len(nouns)} nouns, from {nouns[0].word} to {nouns[-1].word} ({nouns[-1].count})")
    print("  ".join(f"{name} {taken:.2f} s" for name, taken in seconds.items()))
    counts = {"captions": report.captions, "bad": report.bad, "words": len(vocabulary.words)}
    counts |= {"nouns": len(nouns)}
    if args.compare_with:
        both = {noun.word for noun in nouns} & set(load_concepts(args.compare_with).words)
        counts["nouns_in_both"] = len(both)
        print(f"{len(both)} of the nouns are in {args.compare_with}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    rate, total = matrix_gflops(), sum(seconds.values())
    result = {"gemm_gflop": total * rate, "seconds": total, "matrix_gflops": rate}
    result |= counts | {"seconds_by_step": seconds, "peak_mb": peak}
    settings = {"min_count": args.min_count, "max_nouns": args.max_nouns}
    print_json(result | {"textblob": version("textblob")}, settings)


if __name__ == "__main__":
    main()
