"""Measure the projection of images onto a text memory, relative to its matrix products.

    python benchmarks/text_memory_projection.py

The memory has as many texts of width 512 as the training split of COCO has captions, in float16 and
in chunks, as in GlobalPrefix and ObjectPrefix. The lower bound is the number of operations of the
two products, 2 * 2 * batch * texts * width, at the matrix rate of the same run. The peak memory
does not include the texts. The last line is JSON.
"""

import argparse
import functools

import torch
from gemm_timing import figure_of, print_json
from peak_memory import peak_bytes

from pcm_plugin.models.functional.text_memory import project_onto_text_memory


def build_memory(texts: int, width: int, chunk: int) -> torch.Tensor:
    """Create random directions in float16, in chunks, to avoid a float32 copy of all of them."""
    memory = torch.empty(texts, width, dtype=torch.float16)
    for piece in memory.split(chunk):
        piece.copy_(torch.nn.functional.normalize(torch.randn(piece.shape), dim=1))
    return memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--texts", type=int, default=542_401)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    memory = build_memory(args.texts, args.width, args.chunk)
    feats = torch.randn(args.batch, args.width)
    project = functools.partial(
        project_onto_text_memory, feats, text_memory=memory.split(args.chunk), temperature=0.01
    )
    with torch.inference_mode():
        figure = figure_of(project, args.repeats)
        peak = peak_bytes(project)
    lower_bound = 2 * 2 * args.batch * args.texts * args.width / 1e9
    result = figure._asdict() | {
        "lower_bound_gflop": lower_bound,
        "times_lower_bound": figure.gemm_gflop / lower_bound,
        "peak_bytes": peak,
        "memory_bytes": memory.nbytes,
    }
    print(
        f"{args.batch} images onto {args.texts:,} texts: {figure.seconds:.4f} s, "
        f"{result['times_lower_bound']:.2f} times the lower bound at "
        f"{figure.matrix_gflops:.0f} GFLOP/s; "
        f"{peak / 1e6:.0f} MB in addition to the {memory.nbytes / 1e6:.0f} MB of texts"
    )
    print_json(result, vars(args))


if __name__ == "__main__":
    main()
