"""What a training iteration costs at full size: forward, backward, clipping, Adam.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --amp              # bfloat16 autocast
    python benchmarks/train_step.py --straightforward  # without what makes it fast
    python benchmarks/train_step.py --compile          # neck, encoder and decoder, torch.compile

Random weights and features, captions of 8 to 14 words. Figures are in GEMM-GFLOP, see matrix.py;
the floor is the iteration's operations in products; memory is what it takes at its peak beside
weights and the optimiser's state. The last line is JSON.
"""

import argparse
from collections.abc import Callable
from typing import Any

from full_size import BASE, CONCEPTS, add_size_arguments, build_batch, build_model
from matrix import count_gflop, measure
from memory import peak_bytes
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from straightforward import make_straightforward

import pcm_plugin.engine  # noqa: F401  registers


def build_step(args: argparse.Namespace) -> Callable[[], Any]:
    """An iteration of the size of :func:`add_size_arguments`, the model warm."""
    model = build_model(args.vocabulary, CONCEPTS, args.patches).train().to(args.device)
    if args.straightforward:
        make_straightforward(model)
    for part in (model.neck, model.encoder, model.decoder) if args.compile else ():
        part.compile(dynamic=False)
    cfg = Config.fromfile(BASE / "schedules" / "noam_12e.py")
    # NoamLR's at its first steps; the configuration's own is its multiplier.
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
    """Add what an iteration depends on."""
    add_size_arguments(parser)
    parser.add_argument("--shortest", type=int, default=8, help="words of a caption")
    parser.add_argument("--longest", type=int, default=14)
    parser.add_argument("--straightforward", action="store_true", help="see straightforward.py")
    parser.add_argument("--compile", action="store_true", help="torch.compile")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--iterations", type=int, default=15)
    args = parser.parse_args()
    step = build_step(args)
    peak, floor = peak_bytes(step), count_gflop(step)
    print(f"{peak / 1e6:.0f} MB at the peak of an iteration, {floor:.0f} GFLOP in products")
    measure(step, args.iterations, vars(args), peak_bytes=peak, floor_gflop=floor)


if __name__ == "__main__":
    main()
