"""Rephrase captions with a language model, as prompts for images.

    pcm rephrase CAPTIONS --model NAME_OR_FOLDER --count 3 --out rephrasings.jsonl
    pcm generate CAPTIONS --images-per-caption 4 --rephrasings rephrasings.jsonl ...

After an interruption, run the command again to continue.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pcm_plugin.commands.argument_types import positive_integer
from pcm_plugin.commands.caption_arguments import add_caption_arguments, caption_file
from pcm_plugin.errors import UserError, plain_errors

if TYPE_CHECKING:
    from pcm_plugin.formats.captions.caption_file import CaptionFile
    from pcm_plugin.synthesis.rephrase import Rephraser


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser)
    parser.add_argument(
        "--model",
        required=True,
        help="causal language model of transformers with safetensors weights: name on the hub, or "
        "local folder",
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write: NAME.jsonl")
    parser.add_argument(
        "--count", type=positive_integer, default=3, help="texts per caption, at most"
    )
    parser.add_argument(
        "--candidates",
        type=positive_integer,
        help="texts to sample per caption, of which the first COUNT valid ones are kept (default: "
        "twice COUNT)",
    )
    parser.add_argument(
        "--prompt",
        help="text that the model continues up to a line break, with {} for the caption (default: "
        "two examples in English)",
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="divisor of the logits")
    parser.add_argument(
        "--top-p",
        type=float,
        default=0.9,
        help="choose among the most probable tokens whose probabilities sum to TOP_P",
    )
    parser.add_argument(
        "--max-tokens", type=positive_integer, default=40, help="a longer text is dropped"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--batch-size", type=positive_integer, default=16, help="captions per batch"
    )
    parser.add_argument("--device", help="default: a GPU, or the CPU")
    return parser.parse_args()


@plain_errors()
def main() -> None:
    """Run the command."""
    args = parse_args()
    if args.out.suffix != ".jsonl" or args.out.is_dir():
        raise UserError(f"--out must be a file name that ends in .jsonl, got {args.out}")
    from pcm_plugin.synthesis.ranks import Rank, deterministic_cpu_threads
    from pcm_plugin.synthesis.rephrase import PROMPT, Rephraser, RephraseSettings

    prompt = PROMPT if args.prompt is None else args.prompt
    settings = RephraseSettings(
        args.count,
        args.candidates,
        prompt,
        args.temperature,
        args.top_p,
        args.max_tokens,
        args.seed,
        args.dtype,
    )
    captions, report = caption_file(args)
    print(report, flush=True)
    device = args.device or Rank().device()
    rephraser = Rephraser(args.model, settings, device)
    with deterministic_cpu_threads(device):
        texts, short = write_rephrasings(captions, report.captions, rephraser, args)
    print(f"{args.out}: {texts:,} texts of {report.captions:,} captions")
    if short:
        print(
            f"{short:,} captions have fewer than {settings.count} texts: raise --candidates or "
            "--temperature for more"
        )


def write_rephrasings(
    captions: "CaptionFile", total: int, rephraser: "Rephraser", args: argparse.Namespace
) -> tuple[int, int]:
    """Rephrase the captions into ``--out``.

    Returns:
        The number of texts, and of captions with fewer texts than ``--count``.

    Raises:
        UserError: If a prompt is too long, or an interrupted run had other settings.
    """
    from pcm_plugin.apis.journal import Journal
    from pcm_plugin.formats.atomic_io import content_id
    from pcm_plugin.formats.records import write_records

    digest = hashlib.sha256()
    for batch in batches(captions, 1000):
        rephraser.check(batch)
        digest.update(json.dumps([[caption.id, caption.text] for caption in batch]).encode())
    settings = {
        **rephraser.settings.__dict__,
        "model": content_id(Path(args.model)) if Path(args.model).is_dir() else args.model,
        "batch_size": args.batch_size,
        "device": rephraser.device.partition(":")[0],
        "captions": digest.hexdigest()[:16],
    }
    with Journal(args.out, settings, args.batch_size) as journal:
        bar = tqdm(total=total, initial=journal.count, desc="rephrase", unit="caption")
        remaining = islice(captions, journal.count, None)
        try:
            for batch in batches(remaining, args.batch_size):
                rows = zip(batch, rephraser.rephrase(batch), strict=True)
                journal.append([{"id": caption.id, "texts": texts} for caption, texts in rows])
                bar.update(len(batch))
        except BaseException:
            if not journal.count:
                journal.remove()
            raise
        finally:
            bar.close()
        write_records(args.out, journal.rows())
        counts = [len(row["texts"]) for row in journal.rows()]
        journal.remove()
    return sum(counts), sum(count < args.count for count in counts)


def batches(items: Any, size: int) -> Iterator[list[Any]]:
    """Yield lists of up to ``size`` items."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
