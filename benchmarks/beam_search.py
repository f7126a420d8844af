"""Measure the cost of captioning a batch of 32 at full size: encoding and beam search.

    python benchmarks/beam_search.py               # beam 3, all 20 steps
    python benchmarks/beam_search.py --natural     # captions of 8 to 14 words; stops after them
    python benchmarks/beam_search.py --beam 1      # greedy

Weights and features are random. A model with random weights does not end its captions, so their
lengths are set here. Figures are in GEMM-GFLOP (see gemm_timing.py); the lower bound is the number
of operations in matrix products. The last line is JSON.
"""

import argparse
import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from full_size_model import CONCEPTS, add_size_arguments, at_least, build_batch, build_model
from gemm_timing import count_gflop, measure
from torch import Tensor

from pcm_plugin.models.decoders import sentence_decoder

NEVER = 10_000


class FixedLengthDecoder(torch.nn.Module):
    """Decoder whose captions have given lengths."""

    def __init__(self, decoder: Any, lengths: list[int]) -> None:
        super().__init__()
        self.decoder, self.vocab_size = decoder, decoder.vocab_size
        device = next(decoder.parameters()).device
        self.lengths, self.steps = torch.tensor(lengths, device=device), 0

    def start(self, encoder_out: Tensor, mask: Tensor) -> Any:
        """Start decoding like the decoder."""
        self.steps = 0
        return self.decoder.start(encoder_out, mask)

    def step(self, words: Tensor, cache: Any) -> Tensor:
        """Compute the logits of the decoder, and set those of EOS."""
        logits = self.decoder.step(words, cache)
        self.steps += 1
        ends = (self.lengths < self.steps)[:, None]
        logits[..., 0] = torch.where(ends, 1e4, -1e4)
        return logits


def build_captioning(args: argparse.Namespace) -> Callable[[], Any]:
    """Return a function that captions a batch; it has been called once.

    Args:
        args: Settings of :func:`add_arguments`.
    """
    model = build_model(args.vocabulary, args.concepts, args.patches).eval().to(args.device)
    model.decoding = model.decoding.updated({"beam_size": args.beam})
    generator = random.Random(0)
    shortest, longest = (8, 14) if args.natural else (NEVER, NEVER)
    lengths = [generator.randint(shortest, longest) for _ in range(args.batch)]
    model.decoder = FixedLengthDecoder(model.decoder, lengths)
    batch = build_batch(model, args.batch)
    features = {key: batch[key] for key in ("patch_feats", "global_feats")}

    def caption() -> Any:
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.amp):
            return model.test_step(features)

    words = [len(sample.pred_caption.split()) for sample in caption()]
    if words != [min(length, model.decoding.max_len) for length in lengths]:
        raise SystemExit(f"captions must have {lengths} words, got {words}")
    return caption


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the settings of captioning."""
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
    # The counter does not count the products of packed weights.
    with mock.patch.object(sentence_decoder, "prepack_linears", lambda module, _: module):
        lower_bound = count_gflop(caption)
    print(f"{lower_bound:.0f} GFLOP in matrix products")
    measure(caption, args.batches, vars(args), lower_bound_gflop=lower_bound)


if __name__ == "__main__":
    main()
