"""What projecting images onto a memory of texts costs, beside its products' floor.

    python benchmarks/projection.py

A batch of global features and as many texts of width 512 as COCO's training split has captions,
kept in float16 and taken in chunks, as GlobalPrefix and ObjectPrefix do. The floor is the
operations of the two products, 2 * 2 * batch * texts * width, at the matrix rate of the same run;
memory is what a call holds at its peak beside the texts. The last line is JSON.
"""

import argparse
import functools

import torch
from matrix import figure_of, print_json
from memory import peak_bytes

from pcm_plugin.models.functional.text_memory import project_onto_text_memory


def write_memory(texts: int, width: int, chunk: int) -> torch.Tensor:
    """Random directions in float16, made in pieces so that no float32 copy of all is held."""
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
    memory = write_memory(args.texts, args.width, args.chunk)
    feats = torch.randn(args.batch, args.width)
    project = functools.partial(
        project_onto_text_memory, feats, text_memory=memory.split(args.chunk), temperature=0.01
    )
    with torch.inference_mode():
        figure = figure_of(project, args.repeats)
        peak = peak_bytes(project)
    floor = 2 * 2 * args.batch * args.texts * args.width / 1e9
    result = figure._asdict() | {
        "floor_gflop": floor,
        "times_floor": figure.gemm_gflop / floor,
        "peak_bytes": peak,
        "memory_bytes": memory.nbytes,
    }
    print(
        f"{args.batch} images onto {args.texts:,} texts: {figure.seconds:.4f} s, "
        f"{result['times_floor']:.2f} times the floor at {figure.matrix_gflops:.0f} GFLOP/s; "
        f"{peak / 1e6:.0f} MB beside the {memory.nbytes / 1e6:.0f} MB of the texts"
    )
    print_json(result, vars(args))


if __name__ == "__main__":
    main()
