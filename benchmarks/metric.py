"""What CaptionMetric costs, beside pycocoevalcap's scorers by hand.

    python benchmarks/metric.py

5,000 images of five made-up references each, captions of other words. By hand is what one writes
without the package: the same tokenizer, then BLEU, ROUGE-L and CIDEr one after the other. The last
line is JSON.
"""

import argparse
import contextlib
import io
import random
import time
from collections.abc import Callable

from matrix import matrix_gflops, print_json
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from pcm_plugin.datasets.text import tokenize
from pcm_plugin.evaluation import CaptionMetric


def sentences(images: int, each: int) -> list[list[str]]:
    """So many of 8 to 14 words, drawn as words of a language are: few often, many seldom."""
    generator = random.Random(0)
    words = [f"word{i}" for i in range(10_200)]
    odds = [1 / (i + 10) for i in range(len(words))]
    lengths = [[generator.randint(8, 14) for _ in range(each)] for _ in range(images)]
    return [[" ".join(generator.choices(words, odds, k=n)) for n in own] for own in lengths]


def seconds_of(work: Callable[[], dict[str, float]]) -> tuple[float, dict[str, float]]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        found = work()
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    texts = sentences(args.images, args.references + 1)

    def ours() -> dict[str, float]:
        metric = CaptionMetric()
        samples = [
            {"image_id": i, "pred_caption": own[0], "gt_caption": own[1:]}
            for i, own in enumerate(texts)
        ]
        metric.process(None, samples)
        return {k.split("/")[1]: v for k, v in metric.evaluate(len(samples)).items()}

    def by_hand() -> dict[str, float]:
        captions = {i: [" ".join(tokenize(own[0]))] for i, own in enumerate(texts)}
        references = {i: [" ".join(tokenize(t)) for t in own[1:]] for i, own in enumerate(texts)}
        bleu, _ = Bleu(4).compute_score(references, captions)
        found = {f"BLEU-{n}": 100 * score for n, score in enumerate(bleu, 1)}
        for name, scorer in (("ROUGE-L", Rouge()), ("CIDEr", Cider())):
            found[name] = 100 * float(scorer.compute_score(references, captions)[0])
        return found

    rate = matrix_gflops()
    rounds = [(seconds_of(ours), seconds_of(by_hand)) for _ in range(args.rounds)]
    (_, scores), (_, expected) = rounds[0]
    different = {k: (scores[k], v) for k, v in expected.items() if abs(scores[k] - v) > 1e-9}
    if different:
        raise SystemExit(f"scores that are not those by hand: {different}")
    mine, hand = (min(pair[k][0] for pair in rounds) for k in (0, 1))
    print(f"CaptionMetric {mine:.2f} s, by hand {hand:.2f} s: {mine / hand:.2f} times")
    result = {"gemm_gflop": mine * rate, "seconds": mine, "matrix_gflops": rate}
    print_json(result | {"seconds_by_hand": hand, "times_by_hand": mine / hand}, vars(args))


if __name__ == "__main__":
    main()
