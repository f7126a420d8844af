"""What captioning a batch of 32 costs at full size: encoding and beam search.

    python benchmarks/beam_search.py               # beam 3, all 20 steps
    python benchmarks/beam_search.py --natural     # captions of 8 to 14 words, stopping with them
    python benchmarks/beam_search.py --beam 1      # greedy

Random weights and features; random weights end no caption, so that where it ends is told to them.
Figures are in GEMM-GFLOP, see matrix.py; the floor is the operations in products. The last line is
JSON.
"""

import argparse
import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from full_size import CONCEPTS, add_size_arguments, at_least, build_batch, build_model
from matrix import count_gflop, measure
from torch import Tensor

from pcm_plugin.models.decoders import sentence_decoder

NEVER = 10_000


class Ending(torch.nn.Module):
    """The decoder, whose captions end after so many words each."""

    def __init__(self, decoder: Any, lengths: list[int]) -> None:
        super().__init__()
        self.decoder, self.vocab_size = decoder, decoder.vocab_size
        device = next(decoder.parameters()).device
        self.lengths, self.steps = torch.tensor(lengths, device=device), 0

    def start(self, encoder_out: Tensor, mask: Tensor) -> Any:
        """As the decoder's own."""
        self.steps = 0
        return self.decoder.start(encoder_out, mask)

    def step(self, words: Tensor, cache: Any) -> Tensor:
        """As the decoder's own, but for where captions end."""
        logits = self.decoder.step(words, cache)
        self.steps += 1
        ends = (self.lengths < self.steps)[:, None]
        logits[..., 0] = torch.where(ends, 1e4, -1e4)
        return logits


def build_captioning(args: argparse.Namespace) -> Callable[[], Any]:
    """Captioning of a batch of the size of :func:`add_size_arguments`, the model warm."""
    model = build_model(args.vocabulary, args.concepts, args.patches).eval().to(args.device)
    model.decoding = model.decoding.updated({"beam_size": args.beam})
    generator = random.Random(0)
    shortest, longest = (8, 14) if args.natural else (NEVER, NEVER)
    lengths = [generator.randint(shortest, longest) for _ in range(args.batch)]
    model.decoder = Ending(model.decoder, lengths)
    batch = build_batch(model, args.batch)
    features = {key: batch[key] for key in ("patch_feats", "global_feats")}

    def caption() -> Any:
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.amp):
            return model.test_step(features)

    words = [len(sample.pred_caption.split()) for sample in caption()]
    if words != [min(length, model.decoding.max_len) for length in lengths]:
        raise SystemExit(f"captions of {words} words, wanted {lengths}")
    return caption


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what captioning depends on."""
    add_size_arguments(parser)
    parser.add_argument("--beam", type=at_least(1), default=3)
    parser.add_argument("--concepts", type=int, default=CONCEPTS)
    parser.add_argument("--natural", action="store_true", help="captions of 8 to 14 words")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--batches", type=int, default=7)
    args = parser.parse_args()
    caption = build_captioning(args)
    # The counter does not know the products of weights arranged for few rows.
    with mock.patch.object(sentence_decoder, "prepack_linears", lambda module, _: module):
        floor = count_gflop(caption)
    print(f"{floor:.0f} GFLOP in products")
    measure(caption, args.batches, vars(args), floor_gflop=floor)


if __name__ == "__main__":
    main()
