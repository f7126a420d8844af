"""Cost of the stages of a data set, and their description."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.feature_shard import FORMAT as STORE_FORMAT
from pcm_plugin.formats.pair_selection import FORMAT as PAIRS_FORMAT
from pcm_plugin.formats.shards import ShardFolder
from pcm_plugin.formats.vocabulary_coverage import VocabularyCoverage
from pcm_plugin.synthesis.pipeline.recipes import Recipe
from pcm_plugin.synthesis.pipeline.timing import time_matching, time_sentences

_ROW_BYTES = 16  # an index of an image, two scores, and the nearest captions


class Stage(NamedTuple):
    """Cost of a stage.

    Attributes:
        name: Name of the stage, such as ``'generate'``.
        unit: What is counted, such as ``'images'``.
        total: Number of samples.
        done: Number of finished samples.
        seconds_each: Seconds per sample, without loading models.
        bytes_each: Bytes per sample on disk.
    """

    name: str
    unit: str
    total: int
    done: int
    seconds_each: float
    bytes_each: float

    def __str__(self) -> str:
        """Format counts, disk space and remaining time as one line."""
        left = self.total - self.done
        return (
            f"{self.name:14}{self.total:>11,} {self.unit}, {self.done:,} done; "
            f"{_size(self.total * self.bytes_each)} in all; {1 / self.seconds_each:,.2f} a second "
            f"by one process: {_duration(left * self.seconds_each)} left"
        )


class Estimate(NamedTuple):
    """Cost of a data set.

    Attributes:
        words: Size of the vocabulary.
        concepts: Number of concepts.
        coverage: Coverage of the captions by the vocabulary.
        stages: Cost of each stage that takes long.
        free: Free bytes on the disk.
    """

    words: int
    concepts: int
    coverage: VocabularyCoverage
    stages: list[Stage]
    free: int

    def __str__(self) -> str:
        """Format one line per stage, and whether the disk has enough space."""
        left = sum((stage.total - stage.done) * stage.bytes_each for stage in self.stages)
        lines = [
            f"{self.words:,} {self.coverage.unit}, {self.concepts:,} concepts",
            str(self.coverage),
        ]
        lines += map(str, self.stages)
        if left > self.free:
            lines.append(f"THE DISK IS TOO SMALL: {_size(left)} needed, {_size(self.free)} free")
        else:
            lines.append(f"disk: {_size(left)} needed, {_size(self.free)} free")
        return "\n".join(lines)


def extraction_cost(split: str, out: Path, total: int, seconds: float, bytes_each: float) -> Stage:
    """Return the cost of the features of a split."""
    done = min(total, count_done(out / f"{split}_store", STORE_FORMAT))
    return Stage(f"extract {split}", "images", total, done, seconds, bytes_each)


def refinement_cost(
    recipe: Recipe,
    out: Path,
    device: str,
    rows: int,
    captions: int,
    clip_dim: int,
    texts: list[str],
) -> list[Stage]:
    """Return the cost of the choice of pairs.

    Args:
        recipe: The recipe, with settings of the choice.
        out: Folder of the data set.
        device: Device of the computation.
        rows: Number of images.
        captions: Number of captions.
        clip_dim: Width of the features that are compared.
        texts: Captions for the measurement.
    """
    assert recipe.refine is not None
    stages = []
    seconds, sentence_bytes = time_sentences(recipe, device, texts)
    if seconds:
        done = min(captions, count_done(out / "pairs", PAIRS_FORMAT, "sentences"))
        stages.append(Stage("sentences", "captions", captions, done, seconds, sentence_bytes))
    if recipe.refine.method == "sync":
        # Two passes: captions of images, and images of captions.
        total = rows + captions
        done = count_done(out / "pairs", PAIRS_FORMAT)
        done -= count_done(out / "pairs", PAIRS_FORMAT, "sentences")
        seconds, done = time_matching(rows, clip_dim, device), min(total, done)
        stages.append(Stage("refine", "rows", total, done, seconds, _ROW_BYTES))
    return stages


class FirstCaptions:
    """First captions of a file, which can be iterated over repeatedly.

    Args:
        captions: The file.
        count: Their number.
    """

    def __init__(self, captions: CaptionFile, count: int) -> None:
        self.captions, self.count = captions, count

    def __iter__(self) -> Iterator[Caption]:
        return itertools.islice(self.captions, self.count)


def count_done(folder: Path, format: str, start: str = "") -> int:
    """Return the number of samples in finished shards whose names begin with ``start``."""
    if not (folder / "manifest.json").is_file():
        return 0
    shards = ShardFolder(folder, format).shards
    return sum(record["num_source"] for name, record in shards.items() if name.startswith(start))


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
