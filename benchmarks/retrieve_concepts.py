"""Measure the retrieval of concepts, relative to its matrix product.

    python benchmarks/retrieve_concepts.py

A batch of global features is compared with 446 and 20,000 concepts of width 512. The last line is
JSON.
"""

import argparse
import functools

import torch
from gemm_timing import matrix_gflops, print_json, seconds_of

from pcm_plugin.models.functional.concept_retrieval import retrieve_concepts

WIDTH = 512


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--concepts", type=int, nargs="+", default=[446, 20_000])
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()
    rate, results = matrix_gflops(), {}
    for count in args.concepts:
        directions = torch.nn.functional.normalize(torch.randn(count, WIDTH), dim=1)
        feats = torch.randn(args.batch, WIDTH)
        find = functools.partial(retrieve_concepts, feats, directions, 5, 0.0, 0.01)
        with torch.inference_mode():
            found = seconds_of(find, args.repeats, 10)
            orders = (feats, directions.T), (directions, feats.T)
            product, reversed_product = (
                seconds_of(functools.partial(torch.mm, *order), args.repeats, 10)
                for order in orders
            )
        results[count] = {
            "seconds": found,
            "gemm_gflop": found * rate,
            "product_seconds": product,
            "times_product": found / product,
            "times_faster_product": found / min(product, reversed_product),
        }
        print(
            f"{count:,} concepts: {1e6 * found:,.0f} us, {found / product:.2f} times the product "
            f"({1e6 * product:,.0f} us; {1e6 * reversed_product:,.0f} us in the reverse order)"
        )
    # The figures of the last number of concepts, by default the largest.
    last = {key: results[count][key] for key in ("gemm_gflop", "seconds")}
    print_json(last | {"matrix_gflops": rate, "concepts": results}, vars(args))


if __name__ == "__main__":
    main()
