"""Run the rows of a paper's table; print own and published scores.

    pcm paper-table                          # list the tables
    pcm paper-table ablation --list          # list the commands of one; runs nothing
    pcm paper-table cross-domain --out cross_domain.json
    pcm paper-table in-domain --checkpoint pcm_coco=pcmnet_coco.safetensors
    pcm paper-table data-efficiency --train  # train rows that have no weights yet

The weights of a row are the best checkpoint on validation in the folder of its training,
work_dirs/TRAINING. For a row without data or weights, the command that makes them is printed.
Captions and scores are kept next to the weights; another run of the command adds what is missing.
"""

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pcm_plugin.commands.paper_runs import (
    Failed,
    NotRun,
    Settings,
    run_row,
    test_command,
    train_command,
)
from pcm_plugin.commands.paper_tables import TABLES, Row, Table
from pcm_plugin.commands.processes import shell_command
from pcm_plugin.commands.published import update_readmes
from pcm_plugin.errors import UserError, plain_errors
from pcm_plugin.formats.atomic_io import write_json

SCORERS = ("BLEU", "ROUGE-L", "CIDEr", "METEOR", "SPICE")


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", choices=list(TABLES), help="default: list the tables")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--train", action="store_true", help="train rows that have no weights")
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("work_dirs"),
        help="parent of the work folders of trainings",
    )
    parser.add_argument(
        "--rows", nargs="+", default=["*"], metavar="TITLE", help="rows to run; * matches any text"
    )
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="TRAINING=FILE",
        help="weights of a training, such as the released ones; can be repeated",
    )
    parser.add_argument(
        "--scorers", nargs="+", choices=SCORERS, help="scores; METEOR and SPICE need Java"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override settings of every run",
    )
    parser.add_argument(
        "--update-readmes",
        action="store_true",
        help="write the published figures of configs/*/metafile.yml into the README next to it",
    )
    parser.add_argument("--out", type=Path, help="JSON file to write the rows to")
    args = parser.parse_args()
    if args.table is None and (args.list or args.train or args.out):
        parser.error("name a TABLE")
    for pair in [*args.checkpoint, *args.cfg_options]:
        if "=" not in pair:
            parser.error(f"{pair!r} must be NAME=VALUE, quoted if it contains spaces")
    return args


def cell(ours: float | None, published: float | None) -> str:
    """Return our score and the published one, as in ``103.1 / 103.8``."""
    if ours is None and published is None:
        return "-"
    return " / ".join("-" if value is None else f"{value:.1f}" for value in (ours, published))


def source_of(row: Row) -> str:
    """Return the publication of a row's figures, ``''`` if there are none."""
    return row.published.source if row.published else ""


def markdown(table: Table, results: Sequence[tuple[Row, dict[str, Any] | None, str]]) -> str:
    """Return a table in Markdown, with the reasons why rows were not run.

    Args:
        table: The table.
        results: Rows, each with its results or None, and the reason why it was not run.
    """
    lines = [f"### {table.title}", "", f"Ours / published, x 100. {table.remark}".rstrip(), ""]
    lines += ["| | " + " | ".join(table.columns) + " | published by |"]
    lines += ["|" + "---|" * (len(table.columns) + 2)]
    for row, result, _ in results:
        metrics = {} if result is None else result["metrics"]
        published = table.published(row)
        cells = [
            cell(metrics.get(f"caption/{name}"), published.get(head))
            for head, name in table.columns.items()
        ]
        lines.append(f"| {row.title} | {' | '.join(cells)} | {source_of(row) or '-'} |")
    scored = [(row.title, result["checkpoint"]) for row, result, _ in results if result]
    if scored:
        lines += ["", "Ours are of these weights:", ""]
        lines += [f"- {title}: {checkpoint}" for title, checkpoint in scored]
    reasons: dict[str, list[str]] = {}
    for row, result, reason in results:
        if result is None:
            reasons.setdefault(reason, []).append(row.title)
    if reasons:
        lines += ["", "Not run:"]
    for reason, titles in reasons.items():
        lines += ["", *(f"- {title}" for title in titles), ""]
        lines += [f"      {line}" for line in reason.splitlines()]
    return "\n".join(lines)


def list_rows(rows: Sequence[Row], settings: Settings) -> None:
    """Print each row with its commands."""
    for row in rows:
        print(f"\n{row.title}")
        if not row.has_config:
            print("  published only")
            continue
        weights = settings.checkpoints.get(row.training)
        if weights is None:
            print(f"  {shell_command(train_command(row.training, settings))}")
        command, *_ = test_command(row, settings, weights or "CHECKPOINT")
        print(f"  {shell_command(command)}")


@plain_errors()
def main() -> None:
    """Read the command line, run what can be run, print the table."""
    args = parse_args()
    if args.update_readmes:
        print("\n".join(map(str, update_readmes())))
        return
    if args.table is None:
        print("\n".join(f"{name:16}{table.title}" for name, table in TABLES.items()))
        return
    table = TABLES[args.table]
    rows = [r for r in table.rows if any(fnmatchcase(r.title, title) for title in args.rows)]
    if not rows:
        raise UserError(f"no row of {args.table} is called {' or '.join(args.rows)}; see --list")
    checkpoints = dict(pair.split("=", 1) for pair in args.checkpoint)
    if unknown := checkpoints.keys() - {row.training for row in table.rows}:
        raise UserError(f"--checkpoint: {args.table} has no training {sorted(unknown)}; see --list")
    settings = Settings(args.run_dir, args.train, args.cfg_options, args.scorers, checkpoints)
    if args.list:
        list_rows(rows, settings)
        return
    results: list[tuple[Row, dict[str, Any] | None, str]] = []
    failed = False
    for row in rows:
        try:
            results.append((row, run_row(row, settings), ""))
        except NotRun as error:
            failed = failed or isinstance(error, Failed)
            results.append((row, None, str(error)))
    print(markdown(table, results))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            args.out,
            [
                {"title": row.title, "published": table.published(row), "source": source_of(row)}
                | ({"ours": result} if result else {"not_run": reason})
                for row, result, reason in results
            ],
        )
    sys.exit(1 if failed else 0)
