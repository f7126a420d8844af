"""Scores of the runs of ``pcm results``, which remain when their folders are removed."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from mmengine.config import Config

from pcm_plugin.commands.toyworld.arm_features import FEATURES, TAUGHT_CLIP
from pcm_plugin.commands.toyworld.arms import (
    ARMS,
    CHOICES,
    ROAD,
    SEVERAL_IMAGES,
    config_of,
    list_tests,
)
from pcm_plugin.commands.toyworld.steps import CAPTIONS, DATA, GUIDANCE, SIZES
from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import fingerprint, sha256, write_bytes
from pcm_plugin.formats.coco import read_coco_images
from pcm_plugin.packaged_files import CONFIGS
from pcm_plugin.toyworld import ASSETS
from pcm_plugin.toyworld.truth import agreement, count_kinds, found_by_frequency
from pcm_plugin.toyworld.world import read_scenes

RECORDS = Path("docs/results.jsonl")
METRICS = ("CIDEr", "BLEU-4", "ROUGE-L")
_DIGITS = 4

Scores = dict[str, float | None]
"""Scores of one test by name: METRICS, those of :func:`.agreement` and :func:`found_name`."""


def found_name(frequency: str) -> str:
    """Return the name of the share of things found whose kind has a frequency."""
    return f"found, {frequency}"


class Records:
    """Scores by arm, seed and test, and measurements of the toy world, in a file of JSON lines.

    A record counts only while the config, the options and the models of the toy world are those of
    its run. The file does not know whether the code has changed since.

    Args:
        file: The file; it need not exist.
        extra: Options of all trainings, as for ``--cfg-options``. Defaults to none.

    Raises:
        UserError: If the file is damaged.
    """

    def __init__(self, file: Path, extra: Sequence[str] = ()) -> None:
        self.file, self.extra = file, tuple(extra)
        self._lock = Lock()
        self._scores: dict[tuple[str, int, str], tuple[str, Scores]] = {}
        self._measurements: dict[str, tuple[str, dict[str, float]]] = {}
        for number, line in enumerate(_lines(file), 1):
            try:
                record = json.loads(line)
                if "measurement" in record:
                    found = (record["settings"], record["values"])
                    self._measurements[record["measurement"]] = found
                else:
                    key = (record["arm"], record["seed"], record["test"])
                    self._scores[key] = (record["settings"], record["scores"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{file}, line {number} is not a record of `pcm results`: remove the line, and "
                    "its run is repeated"
                ) from error

    def scores(self, arm: str, seed: int, test: str) -> Scores | None:
        """Return the scores of a test.

        Args:
            arm: Name of the training.
            seed: Its seed.
            test: Key of :func:`.list_tests`.

        Returns:
            None if there are none with the present settings.
        """
        settings, scores = self._scores.get((arm, seed, test), ("", None))
        return scores if settings == self._settings(arm, test) else None

    def has_run(self, arm: str, seed: int, endings: Collection[str] | None = None) -> bool:
        """Return whether there are scores of tests of an arm with a seed.

        Args:
            arm: Name of the arm.
            seed: Its seed.
            endings: Those of the tests, see :func:`.list_tests`.
        """
        tests = list_tests(arm, endings)
        return all(self.scores(arm, seed, test) is not None for test in tests)

    def has_measurement(self, name: str) -> bool:
        """Return whether :meth:`measured` need not measure."""
        return self._measurements.get(name, ("",))[0] == world_settings()

    def add(self, arm: str, seed: int, test: str, scores: Mapping[str, float | None]) -> None:
        """Add the scores of a test; :meth:`save` writes them."""
        rounded = {k: None if v is None else round(v, _DIGITS) for k, v in scores.items()}
        with self._lock:
            self._scores[arm, seed, test] = (self._settings(arm, test), rounded)

    def measured(self, name: str, measure: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        """Return a measurement of the toy world; it is made if it is not in the file.

        Args:
            name: Its name.
            measure: Makes it.
        """
        world = world_settings()
        settings, values = self._measurements.get(name, ("", {}))
        if settings != world:
            values = {key: round(value, _DIGITS) for key, value in measure().items()}
            self._measurements[name] = (world, values)
        return values

    def save(self) -> None:
        """Write the file; records with other settings are kept."""
        with self._lock:
            records: list[dict[str, Any]] = [
                {"measurement": name, "settings": settings, "values": values}
                for name, (settings, values) in sorted(self._measurements.items())
            ]
            for (arm, seed, test), (settings, scores) in sorted(self._scores.items()):
                key = {"arm": arm, "seed": seed, "test": test, "settings": settings}
                records.append({**key, "scores": scores})
            self.file.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(record) + "\n" for record in records)
            write_bytes(self.file, text.encode())

    def _settings(self, arm: str, test: str) -> str:
        return fingerprint([*self.extra, arm_settings(arm, test)])


def read_scores(folder: Path, domain: str) -> Scores:
    """Return the scores of a test from its folder.

    Args:
        folder: Folder with ``metrics.json`` and ``captions.json``.
        domain: The domain of its images.
    """
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    entries = json.loads((folder / "captions.json").read_text())
    captions = {entry["image_id"]: entry["caption"] for entry in entries}
    scores: Scores = {name: metrics[f"caption/{name}"] for name in METRICS}
    for split in ("test", "val"):
        scenes = read_scenes(DATA / domain / f"scenes_{split}.jsonl")
        if scenes.keys() == captions.keys():
            texts, shown = [captions[key] for key in scenes], list(scenes.values())
            scores |= agreement(texts, shown)
            found = found_by_frequency(texts, shown, _training_counts())
            scores |= {found_name(frequency): share for frequency, share in found.items()}
    return scores


@cache
def _training_counts() -> Mapping[str, int]:
    return count_kinds(text for image in read_coco_images(CAPTIONS) for text in image.captions)


@cache
def world_settings() -> str:
    """Return a short name for the models and the sizes of the toy world."""
    models = sorted([*ASSETS.glob("*/*.safetensors"), *ASSETS.glob("*/*/*.safetensors")])
    hashes = [[model.relative_to(ASSETS).as_posix(), sha256(model)] for model in models]
    return fingerprint([hashes, SIZES, GUIDANCE])


@cache
def arm_settings(arm: str, test: str) -> str:
    """Return a short name for all settings on which the scores of a test depend."""
    chosen = list_tests(arm)[test]
    config = [_config_values(config_of(arm)), *ARMS[arm].config_options()]
    evaluation = chosen.evaluation and (
        _config_values(CONFIGS / "_base_" / "eval" / f"{chosen.evaluation}.py")
    )
    names = " ".join([FEATURES[ARMS[arm].features].clip, *chosen.options])
    clips = [_weights(Path(TAUGHT_CLIP.removeprefix("local-dir:")))] * (TAUGHT_CLIP in names)
    pairs = [SEVERAL_IMAGES, *CHOICES[ROAD[arm]]] if arm in ROAD else None
    return fingerprint([world_settings(), config, evaluation, chosen.options, clips or None, pairs])


def _weights(folder: Path) -> list[str]:
    return [sha256(file) for file in sorted(folder.glob("*.safetensors"))]


@cache
def _config_values(file: Path) -> Any:
    return json.loads(json.dumps(Config.fromfile(file).to_dict(), default=str))


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
