"""Pairs of images and captions in the formats of other tools."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import atomic_write, write_bytes, write_json, write_json_list
from pcm_plugin.formats.caption_results import METADATA
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_shards import ImageShardReader
from pcm_plugin.formats.images.image_io import read_file
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.formats.records import write_records


@dataclass(frozen=True)
class PairFormat:
    """Format of exported pairs.

    Attributes:
        name: One of :data:`FORMATS`.
        prompt: Question of a conversation (``llava``). Defaults to ``'Describe the image.'``.
        concept: Name of the folder after its number of repeats (``kohya``). Defaults to
            ``'images'``.
        repeats: How often an image is used per epoch (``kohya``). Defaults to 1.
        shard_size: Pairs per archive (``webdataset``). Defaults to 1000.

    Raises:
        UserError: If a value is invalid.
    """

    name: str
    prompt: str = "Describe the image."
    concept: str = "images"
    repeats: int = 1
    shard_size: int = 1000

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise UserError(f"format must be one of {', '.join(FORMATS)}, got {self.name!r}")
        for name in ("repeats", "shard_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.concept or set(self.concept) & set('/\\:*?"<>|') or self.concept[-1] in " .":
            raise UserError(f"concept must be part of a folder name, got {self.concept!r}")


class _Pair(NamedTuple):
    """A pair: its number, the number of its image in the store, the caption and its score."""

    number: int
    image: int
    caption: str
    clip_score: float


class _Images:
    """Encoded images of a store."""

    def __init__(self, store: FeatureStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._reader: ImageShardReader | None = None
        if not folder.is_dir():
            raise MissingFileError(f"no folder of images at {folder}")
        if (folder / "manifest.json").is_file():
            self._reader = ImageShardReader(folder)
            self._reader.check_store(store)
        elif "file_name" not in store.record(0):
            raise UserError(
                f"{store.path} has no file names: pass the folder of `pcm generate` from which it "
                "was extracted"
            )
        elif not (folder / store.record(0)["file_name"]).is_file():
            raise MissingFileError(
                f"no image {store.record(0)['file_name']} in {folder}: pass the folder from which "
                f"{store.path} was extracted"
            )

    def image_id(self, image: int) -> str:
        return self._store.record(image)["image_id"]

    def suffix(self, image: int) -> str:
        record = self._store.record(image)
        if self._reader is not None:
            return self._reader.suffix(record["image_id"])
        return Path(record["file_name"]).suffix.lower()

    def read(self, image: int) -> bytes:
        record = self._store.record(image)
        if self._reader is not None:
            return self._reader.read_bytes(record["image_id"])
        return read_file(self._folder / record["file_name"])


class _Export(NamedTuple):
    """Inputs of a writer, which keeps files that were written before an interruption."""

    store: FeatureStore
    selection: PairSelection
    images: _Images
    out: Path
    settings: PairFormat

    def pairs(self) -> Iterator[_Pair]:
        """Yield the pairs, sorted by caption."""
        for number in range(len(self.selection.caption)):
            yield self.pair(number)

    def pair(self, number: int) -> _Pair:
        selection = self.selection
        caption = self.store.caption(int(selection.caption[number]))
        score = float(selection.clip_score[number])
        return _Pair(number, int(selection.image[number]), caption, score)

    def copy_image(self, image: int, path: Path) -> None:
        if not path.exists():
            write_bytes(path, self.images.read(image))

    def image_name(self, image: int) -> str:
        """Return the file name of an image that is written once for all of its captions."""
        return f"{image:08d}{self.images.suffix(image)}"

    def captions_by_image(self) -> dict[int, list[str]]:
        captions: dict[int, list[str]] = {}
        for pair in self.pairs():
            captions.setdefault(pair.image, []).append(pair.caption)
        return captions


def export_pairs(
    store: str | os.PathLike,
    images: str | os.PathLike,
    out: str | os.PathLike,
    settings: PairFormat,
    pairs: str | os.PathLike | None = None,
) -> int:
    """Export pairs with their images, which are copied without decoding.

    - ``webdataset``: archives of ``shard_size`` pairs, with ``.txt`` (the caption) and ``.json``
      (``image_id``, ``caption``, ``clip_score``) next to each image.
    - ``imagefolder``: an image file per pair, and ``metadata.jsonl`` with ``file_name``, ``text``,
      ``image_id`` and ``clip_score``, for Hugging Face datasets.
    - ``llava``: ``images/``, and ``dataset.json`` with a conversation of two turns per pair.
    - ``kohya``: a folder ``REPEATS_CONCEPT`` with a ``.txt`` file next to each image, which
      contains its captions, one per line.

    The files are written to ``OUT.partial``, which is renamed at the end, and the settings to
    ``OUT.partial.json``. After an interruption, the next call continues there.

    Args:
        store: Feature store.
        images: Folder from which the store was extracted.
        out: Folder to create.
        settings: The format.
        pairs: ``pairs.safetensors`` of ``pcm refine``. Defaults to None: each caption with its own
            image.

    Returns:
        Number of pairs.

    Raises:
        MissingFileError: If the store, the images or the pairs are missing.
        UserError: If ``out`` exists, the store was made from captions alone, the images or the
            pairs are those of another store, or ``OUT.partial`` contains another export.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists: pass a new folder")
    reader = FeatureStore(store)
    reader.require_images("pcm store export-pairs")
    selection = load_pairs(reader, pairs)
    source = _Images(reader, Path(images))
    partial = out.with_name(f"{out.name}.partial")
    _claim(partial, reader, selection, settings)
    FORMATS[settings.name](_Export(reader, selection, source, partial, settings))
    partial.rename(out)
    _marker(partial).unlink()
    return len(selection.caption)


def _claim(
    partial: Path, store: FeatureStore, selection: PairSelection, settings: PairFormat
) -> None:
    marker = _marker(partial)
    record = {
        "store": store.identity,
        "pairs": [_digest(values) for values in selection],
        "format": asdict(settings),
    }
    if partial.exists() and (not marker.is_file() or json.loads(marker.read_text()) != record):
        raise UserError(f"{partial} contains another export: delete it, or pass another folder")
    write_json(marker, record)
    partial.mkdir(exist_ok=True)


def _marker(partial: Path) -> Path:
    # Next to the folder, which holds nothing but the files of its format.
    return partial.with_name(f"{partial.name}.json")


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def _write_webdataset(export: _Export) -> None:
    total, size = len(export.selection.caption), export.settings.shard_size
    for start in tqdm(range(0, total, size), desc="export", unit="shard"):
        path = export.out / f"{start // size:05d}.tar"
        if path.exists():
            continue
        with (
            atomic_write(path) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for number in range(start, min(start + size, total)):
                pair = export.pair(number)
                facts = json.dumps(_facts(export, pair), ensure_ascii=False, sort_keys=True)
                for suffix, data in (
                    (export.images.suffix(pair.image), export.images.read(pair.image)),
                    (".txt", pair.caption.encode()),
                    (".json", facts.encode()),
                ):
                    entry = tarfile.TarInfo(f"{number:08d}{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))


def _facts(export: _Export, pair: _Pair) -> dict[str, Any]:
    image_id = export.images.image_id(pair.image)
    return {"image_id": image_id, "caption": pair.caption, "clip_score": pair.clip_score}


def _write_imagefolder(export: _Export) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for pair in tqdm(export.pairs(), "export", len(export.selection.caption), unit="pair"):
            name = f"{pair.number:08d}{export.images.suffix(pair.image)}"
            export.copy_image(pair.image, export.out / name)
            facts = _facts(export, pair)
            yield {"file_name": name, "text": facts.pop("caption"), **facts}

    write_records(export.out / METADATA, rows())


def _write_llava(export: _Export) -> None:
    def conversations() -> Iterator[dict[str, Any]]:
        for pair in tqdm(export.pairs(), "export", len(export.selection.caption), unit="pair"):
            name = f"images/{export.image_name(pair.image)}"
            export.copy_image(pair.image, export.out / name)
            question = f"<image>\n{export.settings.prompt}"
            turns = [("human", question), ("gpt", pair.caption)]
            yield {
                "id": f"{pair.number:08d}",
                "image": name,
                "conversations": [{"from": who, "value": text} for who, text in turns],
            }

    write_json_list(export.out / "dataset.json", conversations())


def _write_kohya(export: _Export) -> None:
    folder = export.out / f"{export.settings.repeats}_{export.settings.concept}"
    for image, captions in tqdm(export.captions_by_image().items(), desc="export", unit="img"):
        path = folder / export.image_name(image)
        export.copy_image(image, path)
        text = "".join(f"{caption}\n" for caption in captions)
        write_bytes(path.with_suffix(".txt"), text.encode())


FORMATS: dict[str, Callable[[_Export], None]] = {
    "webdataset": _write_webdataset,
    "imagefolder": _write_imagefolder,
    "llava": _write_llava,
    "kohya": _write_kohya,
}
"""Writers by the name of their format."""
