"""What CaptionMetric costs and gives, beside pycocoevalcap by hand.

    python benchmarks/metric.py
    python benchmarks/metric.py --captions Flickr8k.token.txt --scorers BLEU ROUGE-L CIDEr METEOR

By hand is what one writes without the package: the tokenizer of pycocoevalcap, which needs Java,
then its scorers one after the other. Without --captions the sentences are made up, six an image;
with a Flickr token file they are its captions. The first of an image is its caption, the others
are references. The scores of both must agree to 1e-9. The last line is JSON.
"""

import argparse
import contextlib
import io
import itertools
import random
import shutil
import string
import time
from collections.abc import Callable
from pathlib import Path

from full_size import at_least
from matrix import matrix_gflops, print_json
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.ptb_tokenizer import ptb_tokenize
from pcm_plugin.formats.captions.caption_file import CaptionFile

BY_HAND = {"BLEU": Bleu, "ROUGE-L": Rouge, "CIDEr": Cider, "METEOR": Meteor}


def sentences(images: int, each: int) -> list[list[str]]:
    """So many of 8 to 14 words, drawn as words of a language are: few often, many seldom."""
    generator = random.Random(0)
    letters = string.ascii_lowercase
    words = ["".join(w) for w in itertools.islice(itertools.product(letters, repeat=4), 10_200)]
    odds = [1 / (i + 10) for i in range(len(words))]
    lengths = [[generator.randint(8, 14) for _ in range(each)] for _ in range(images)]
    return [[" ".join(generator.choices(words, odds, k=n)) for n in own] for own in lengths]


def read_captions(path: str, images: int) -> list[list[str]]:
    """All captions of the first images that have at least two."""
    found: dict[str, list[str]] = {}
    for caption in CaptionFile(Path(path), skip_invalid=True):
        # Flickr8k's file names one of its images a second time, "2258277193_586949ec62.jpg.1".
        if not (caption.file_name or "").endswith(".jpg.1"):
            found.setdefault(caption.image_id, []).append(caption.text)
    return [own for own in found.values() if len(own) > 1][:images]


def seconds_of(work: Callable[[], dict[str, float]]) -> tuple[float, dict[str, float]]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        found = work()
    return time.perf_counter() - start, found


def tokenize_by_hand(texts: dict[int, list[str]]) -> dict[int, list[str]]:
    """By Java, as one does; by ours where there is none."""
    if shutil.which("java") is None:
        return {i: [" ".join(ptb_tokenize(t)) for t in own] for i, own in texts.items()}
    return PTBTokenizer().tokenize({i: [{"caption": t} for t in own] for i, own in texts.items()})


def compare_tokens(path: str) -> None:
    """Hold the tokens of all captions of a file to the Java tokenizer's."""
    texts = [caption.text for caption in CaptionFile(Path(path), skip_invalid=True)]
    theirs = tokenize_by_hand({i: [text] for i, text in enumerate(texts)})
    ours = [" ".join(ptb_tokenize(text)) for text in texts]
    differ = sum(text != theirs[i][0] for i, text in enumerate(ours))
    print(f"{len(texts):,} captions, {differ} with other tokens than the Java tokenizer gives")
    if differ:
        raise SystemExit("the tokens differ")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=at_least(1), default=5000)
    parser.add_argument("--references", type=at_least(1), default=5, help="of made-up sentences")
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--captions", help="a Flickr token file, or another caption file")
    parser.add_argument(
        "--scorers", nargs="+", choices=list(BY_HAND), default=["BLEU", "ROUGE-L", "CIDEr"]
    )
    args = parser.parse_args()
    if args.captions:
        if shutil.which("java"):
            compare_tokens(args.captions)
        texts = read_captions(args.captions, args.images)
    else:
        texts = sentences(args.images, args.references + 1)

    def ours() -> dict[str, float]:
        metric = CaptionMetric(args.scorers, prefix="")
        samples = [
            {"image_id": i, "pred_caption": own[0], "gt_caption": own[1:]}
            for i, own in enumerate(texts)
        ]
        metric.process(None, samples)
        return metric.evaluate(len(samples))

    def by_hand() -> dict[str, float]:
        captions = tokenize_by_hand({i: own[:1] for i, own in enumerate(texts)})
        references = tokenize_by_hand({i: own[1:] for i, own in enumerate(texts)})
        found = {}
        for name in args.scorers:
            score, _ = BY_HAND[name]().compute_score(references, captions)
            if name == "BLEU":
                found |= {f"BLEU-{n}": 100 * value for n, value in enumerate(score, 1)}
            else:
                found[name] = 100 * float(score)
        return found

    rate = matrix_gflops()
    rounds = [(seconds_of(ours), seconds_of(by_hand)) for _ in range(args.rounds)]
    (_, scores), (_, expected) = rounds[0]
    for name, value in expected.items():
        print(f"{name:8} {scores[name]:.4f}, by hand {value:.4f}")
    different = {k: (scores[k], v) for k, v in expected.items() if abs(scores[k] - v) > 1e-9}
    if different:
        raise SystemExit(f"scores that are not those by hand: {different}")
    mine, hand = (min(pair[k][0] for pair in rounds) for k in (0, 1))
    print(f"CaptionMetric {mine:.2f} s, by hand {hand:.2f} s: {mine / hand:.2f} times")
    result = {"gemm_gflop": mine * rate, "seconds": mine, "matrix_gflops": rate}
    print_json(result | {"seconds_by_hand": hand, "times_by_hand": mine / hand}, vars(args))


if __name__ == "__main__":
    main()
