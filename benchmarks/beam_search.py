"""What captioning a batch of 32 costs at full size: encoding and beam search.

    python benchmarks/beam_search.py               # beam 3, all 20 steps
    python benchmarks/beam_search.py --natural     # captions of 8 to 14 words, stopping with them
    python benchmarks/beam_search.py --beam 1      # greedy

Random weights and features; random weights end no caption, so that where it ends is told to them.
Figures are in GEMM-GFLOP, see matrix.py; the last line is JSON.
"""

import argparse
import random
from typing import Any

import torch
from full_size import add_size_arguments, build_batch, build_model
from matrix import measure
from torch import Tensor

NEVER = 10_000


class Ending(torch.nn.Module):
    """The decoder, whose captions end after so many words each."""

    def __init__(self, decoder: Any, lengths: list[int]) -> None:
        super().__init__()
        self.decoder, self.vocab_size = decoder, decoder.vocab_size
        self.lengths, self.steps = torch.tensor(lengths), 0

    def start(self, memory: Tensor, mask: Tensor) -> Any:
        """As the decoder's own."""
        self.steps = 0
        return self.decoder.start(memory, mask)

    def step(self, words: Tensor, cache: Any) -> Tensor:
        """As the decoder's own, but for where captions end."""
        logits = self.decoder.step(words, cache)
        self.steps += 1
        ends = (self.lengths < self.steps)[:, None]
        logits[..., 0] = torch.where(ends, 1e4, -1e4)
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_size_arguments(parser)
    parser.add_argument("--beam", type=int, default=3)
    parser.add_argument("--natural", action="store_true", help="captions of 8 to 14 words")
    parser.add_argument("--batches", type=int, default=7)
    args = parser.parse_args()
    model = build_model(args.vocabulary, num_patches=args.patches).eval()
    model.beam_size = args.beam
    generator = random.Random(0)
    shortest, longest = (8, 14) if args.natural else (NEVER, NEVER)
    lengths = [generator.randint(shortest, longest) for _ in range(args.batch)]
    model.decoder = Ending(model.decoder, lengths)
    batch = build_batch(model, args.batch)
    features = {key: batch[key] for key in ("patch_feats", "global_feats")}

    def caption() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=args.amp):
            return model.test_step(features)

    words = [len(sample.pred_caption.split()) for sample in caption()]
    if words != [min(length, model.max_len) for length in lengths]:
        raise SystemExit(f"captions of {words} words, wanted {lengths}")
    measure(caption, args.batches, vars(args))


if __name__ == "__main__":
    main()
