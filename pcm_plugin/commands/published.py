"""Figures that papers publish of the systems, from the metafiles of the configs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.packaged_files import CONFIGS

SCORES = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE")
"""Scores of the papers, in their order."""

_START, _END = "<!-- published: pcm paper-table -->", "<!-- end of published -->"


@dataclass(frozen=True)
class PublishedResult:
    """Figures of one model on one data set.

    Attributes:
        model: Name of the model: of a config, or of a training in :mod:`paper_trainings`.
        dataset: Data set of the images, e.g. ``'COCO'``.
        evaluation: Its name for ``pcm test --eval-on``; None for the data set that the model
            was trained on.
        metrics: Scores x 100, as they were printed.
        source: Publication.
    """

    model: str
    dataset: str
    evaluation: str | None
    metrics: Mapping[str, float]
    source: str


@cache
def load_published() -> dict[tuple[str, str | None], PublishedResult]:
    """Return all published results of ``configs``, by model and evaluation."""
    files = [*sorted(CONFIGS.glob("*/metafile.yml")), CONFIGS / "other_systems.yml"]
    results = [result for file in files for result in read_metafile(file)]
    return {(result.model, result.evaluation): result for result in results}


def read_metafile(file: Path) -> list[PublishedResult]:
    """Return the published results of a metafile, in its order."""
    from mmengine.fileio import load

    content = load(file)
    sources = {part["Name"]: part.get("Source", "") for part in content["Collections"]}
    return [
        PublishedResult(
            model["Name"],
            result["Dataset"],
            result.get("Evaluation"),
            result["Metrics"],
            result.get("Source", sources[model["In Collection"]]),
        )
        for model in content["Models"]
        for result in model.get("Published Results", [])
    ]


def format_table(results: Iterable[PublishedResult]) -> str:
    """Return published results as a Markdown table."""
    lines = [
        f"| model | images | {' | '.join(SCORES)} | source |",
        "|---" * (len(SCORES) + 3) + "|",
    ]
    for result in results:
        cells = [f"{result.metrics[s]:.1f}" if s in result.metrics else "-" for s in SCORES]
        option = f", `--eval-on {result.evaluation}`" if result.evaluation else ""
        lines.append(
            f"| `{result.model}` | {result.dataset}{option} | {' | '.join(cells)} "
            f"| {result.source} |"
        )
    return "\n".join(lines)


def update_readmes() -> list[Path]:
    """Write the published results of each metafile into the README next to it.

    Returns:
        The READMEs that have a table, between ``<!-- published: pcm paper-table -->`` and
        ``<!-- end of published -->``.
    """
    pages = []
    for file in sorted(CONFIGS.glob("*/metafile.yml")):
        page = file.with_name("README.md")
        head, start, rest = page.read_text().partition(_START)
        if start:
            _, _, tail = rest.partition(_END)
            table = format_table(read_metafile(file))
            write_bytes(page, f"{head}{_START}\n\n{table}\n\n{_END}{tail}".encode())
            pages.append(page)
    return pages
