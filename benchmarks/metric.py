"""Compare time and scores of CaptionMetric with those of pycocoevalcap.

    python benchmarks/metric.py
    python benchmarks/metric.py --captions Flickr8k.token.txt --scorers BLEU ROUGE-L CIDEr METEOR

pycocoevalcap runs its tokenizer, which needs Java, and then its scorers one after the other. By
default the sentences are random, six per image; --captions reads them from a caption file. The
first sentence of an image is its caption, and the others are the references. The scores must agree
to 1e-9. The last line is JSON.
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

from full_size_model import at_least
from gemm_timing import matrix_gflops, print_json
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.ptb_tokenizer import ptb_tokenize
from pcm_plugin.formats.captions.caption_file import CaptionFile

PYCOCOEVALCAP = {"BLEU": Bleu, "ROUGE-L": Rouge, "CIDEr": Cider, "METEOR": Meteor}


def sentences(images: int, each: int) -> list[list[str]]:
    """Create sentences of 8 to 14 words with a word distribution like that of a language."""
    generator = random.Random(0)
    letters = string.ascii_lowercase
    words = ["".join(w) for w in itertools.islice(itertools.product(letters, repeat=4), 10_200)]
    odds = [1 / (i + 10) for i in range(len(words))]
    lengths = [[generator.randint(8, 14) for _ in range(each)] for _ in range(images)]
    return [[" ".join(generator.choices(words, odds, k=n)) for n in own] for own in lengths]


def read_captions(path: str, images: int) -> list[list[str]]:
    """Read the captions of the first images that have at least two."""
    found: dict[str, list[str]] = {}
    for caption in CaptionFile(Path(path), skip_invalid=True):
        # The file of Flickr8k has one of its images twice, "2258277193_586949ec62.jpg.1".
        if not (caption.file_name or "").endswith(".jpg.1"):
            found.setdefault(caption.image_id, []).append(caption.text)
    return [own for own in found.values() if len(own) > 1][:images]


def seconds_of(work: Callable[[], dict[str, float]]) -> tuple[float, dict[str, float]]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        found = work()
    return time.perf_counter() - start, found


def tokenize(texts: dict[int, list[str]]) -> dict[int, list[str]]:
    """Tokenize with Java, or with our tokenizer if there is no Java."""
    if shutil.which("java") is None:
        return {i: [" ".join(ptb_tokenize(t)) for t in own] for i, own in texts.items()}
    return PTBTokenizer().tokenize({i: [{"caption": t} for t in own] for i, own in texts.items()})


def compare_tokens(path: str) -> None:
    """Compare the tokens of all captions of a file with those of the Java tokenizer."""
    texts = [caption.text for caption in CaptionFile(Path(path), skip_invalid=True)]
    theirs = tokenize({i: [text] for i, text in enumerate(texts)})
    ours = [" ".join(ptb_tokenize(text)) for text in texts]
    differ = sum(text != theirs[i][0] for i, text in enumerate(ours))
    print(f"{len(texts):,} captions, {differ} whose tokens differ from those of the Java tokenizer")
    if differ:
        raise SystemExit("the tokens differ")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=at_least(1), default=5000)
    parser.add_argument(
        "--references", type=at_least(1), default=5, help="number per image, of random sentences"
    )
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--captions", help="caption file, such as Flickr8k.token.txt")
    parser.add_argument(
        "--scorers", nargs="+", choices=list(PYCOCOEVALCAP), default=["BLEU", "ROUGE-L", "CIDEr"]
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

    def pycocoevalcap() -> dict[str, float]:
        captions = tokenize({i: own[:1] for i, own in enumerate(texts)})
        references = tokenize({i: own[1:] for i, own in enumerate(texts)})
        found = {}
        for name in args.scorers:
            score, _ = PYCOCOEVALCAP[name]().compute_score(references, captions)
            if name == "BLEU":
                found |= {f"BLEU-{n}": 100 * value for n, value in enumerate(score, 1)}
            else:
                found[name] = 100 * float(score)
        return found

    rate = matrix_gflops()
    rounds = [(seconds_of(ours), seconds_of(pycocoevalcap)) for _ in range(args.rounds)]
    (_, scores), (_, expected) = rounds[0]
    for name, value in expected.items():
        print(f"{name:8} {scores[name]:.4f}, pycocoevalcap {value:.4f}")
    different = {k: (scores[k], v) for k, v in expected.items() if abs(scores[k] - v) > 1e-9}
    if different:
        raise SystemExit(f"scores must equal those of pycocoevalcap, got {different}")
    mine, theirs = (min(pair[k][0] for pair in rounds) for k in (0, 1))
    print(f"CaptionMetric {mine:.2f} s, pycocoevalcap {theirs:.2f} s: ratio {mine / theirs:.2f}")
    result = {"gemm_gflop": mine * rate, "seconds": mine, "matrix_gflops": rate}
    print_json(
        result | {"seconds_pycocoevalcap": theirs, "times_pycocoevalcap": mine / theirs}, vars(args)
    )


if __name__ == "__main__":
    main()
