"""Measure the cost of a training iteration at full size: forward, backward, clipping, Adam.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --amp              # bfloat16 autocast
    python benchmarks/train_step.py --unoptimized      # see unoptimized.py
    python benchmarks/train_step.py --compile          # torch.compile of neck, encoder and decoder

Weights and features are random, and captions have 8 to 14 words. Figures are in GEMM-GFLOP (see
gemm_timing.py); the lower bound is the number of operations in matrix products. The peak memory
does not include weights and the state of the optimizer. The last line is JSON.
"""

import argparse
from collections.abc import Callable
from typing import Any

from full_size_model import BASE, CONCEPTS, add_size_arguments, build_batch, build_model
from gemm_timing import count_gflop, measure
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from peak_memory import peak_bytes
from unoptimized import make_unoptimized

import pcm_plugin.engine  # noqa: F401  registers


def build_step(args: argparse.Namespace) -> Callable[[], Any]:
    """Return a function that runs an iteration; it has been called once.

    Args:
        args: Settings of :func:`add_arguments`.
    """
    model = build_model(args.vocabulary, CONCEPTS, args.patches).train().to(args.device)
    if args.unoptimized:
        make_unoptimized(model)
    for part in (model.neck, model.encoder, model.decoder) if args.compile else ():
        part.compile(dynamic=False)
    cfg = Config.fromfile(BASE / "schedules" / "noam_12e.py")
    # The learning rate of NoamLR's first steps; in the config it is a multiplier.
    cfg.optim_wrapper.optimizer.lr = 1e-6
    if args.amp:
        cfg.optim_wrapper.type = "pcm_plugin.BFloat16OptimWrapper"
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    batch = build_batch(model, args.batch, args.shortest, args.longest)

    def step() -> Any:
        return model.train_step(batch, wrapper)

    step()
    return step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the settings of an iteration."""
    add_size_arguments(parser)
    parser.add_argument(
        "--shortest", type=int, default=8, help="smallest number of words per caption"
    )
    parser.add_argument("--longest", type=int, default=14, help="largest number of words")
    parser.add_argument("--unoptimized", action="store_true", help="see unoptimized.py")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--iterations", type=int, default=15)
    args = parser.parse_args()
    step = build_step(args)
    peak, lower_bound = peak_bytes(step), count_gflop(step)
    print(f"{peak / 1e6:.0f} MB peak memory, {lower_bound:.0f} GFLOP in matrix products")
    measure(step, args.iterations, vars(args), peak_bytes=peak, lower_bound_gflop=lower_bound)


if __name__ == "__main__":
    main()
