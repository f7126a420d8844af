"""Merging of feature stores, and export in the format of the released code."""

import contextlib
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import (
    atomic_write,
    copy_file,
    fingerprint,
    write_bytes,
    write_json,
)
from pcm_plugin.formats.clip_head import CLIP_HEAD
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.formats.feature_shard import FORMAT, image_line
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_ids import refuse_repeated
from pcm_plugin.formats.shards import Shard, ShardFolder, shard_name

_COMMITTED = ("count", "digest", "files", "num_source")
_OF_CAPTIONS = ("model", "pretrained", "dtype", "caption_template", "clip_dim")
_MARKER = "store.json"


def merge(
    stores: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    prefix_ids: bool = False,
    mixed: bool = False,
) -> ShardFolder:
    """Merge stores of the same CLIP to a new one, in the given order.

    No two images may have the same id or file name, which identify images in validation, in scores
    and in file names.

    Files are hard links where the file system supports them, so they need no additional space, and
    copies elsewhere. This is safe because files of a store are never changed, only replaced. If the
    new store has shards already, only the missing ones are made.

    Args:
        stores: Folders of finished stores.
        out: Folder of the new store.
        prefix_ids: Whether to prefix ids and file names with the number of the store, from 0: image
            ``'7'`` with file ``'7.png'`` in the second store becomes ``'1-7'`` with ``'1/7.png'``.
            Defaults to False.
        mixed: Whether the first stores may have captions alone and the others images. Then they
            only share the settings on which the features of captions depend. Defaults to False.

    Returns:
        The finished store.

    Raises:
        MissingFileError: If a store is missing.
        UserError: If the stores were made with different settings, one of them is ``out``, or
            images have the same id or file name.
    """
    folders = [_open(path) for path in stores]
    alone = [mixed and _is_alone(folder) for folder in folders]
    with_images = folders[sum(alone) :] or folders
    for folder, of_captions in zip(folders, alone, strict=True):
        first = _settings(with_images[0], of_captions)
        if folder.path.resolve() == Path(out).resolve():
            raise UserError(f"{out} is one of the stores to merge: pass a new folder")
        other = _settings(folder, of_captions)
        changed = sorted(k for k in first.keys() | other.keys() if first.get(k) != other.get(k))
        if changed:
            values = (f"{key}: {first.get(key)!r} and {other.get(key)!r}" for key in changed)
            raise UserError(
                f"{with_images[0].path} and {folder.path} were made with different settings "
                f"({'; '.join(values)})"
            )
    heads = [_head(folder) for folder in with_images]
    if any(head != heads[0] for head in heads):
        raise UserError(f"these stores have different {CLIP_HEAD}: they must be of the same CLIP")
    if not prefix_ids:
        _refuse_shared_names(stores)
    parts = [(i, folder, name) for i, folder in enumerate(folders) for name in folder.shards]
    records = [folder.shards[name] for _, folder, name in parts]
    plan = [
        Shard(shard_name(index), record["num_source"], record["digest"])
        for index, record in enumerate(records)
    ]
    source: dict[str, Any] = {"merged": [fingerprint(folder.manifest) for folder in folders]}
    if prefix_ids:
        source["prefix_ids"] = True
    settings = {**with_images[0].manifest["settings"], "source": source}
    info = with_images[0].manifest["info"]
    merged = ShardFolder.open_for_write(out, FORMAT, settings, plan)
    if heads[0] is not None:
        write_bytes(merged.path / CLIP_HEAD, heads[0])
    pairs = [*zip(plan, parts, strict=True)]
    for shard, (i, folder, name) in tqdm(pairs, desc="merge", unit="shard"):
        if shard.name not in merged.shards:
            record = folder.shards[name]
            files = {file: file.replace(name, shard.name) for file in record["files"]}
            for old, new in files.items():
                if prefix_ids and old.endswith(".jsonl"):
                    _write_prefixed(folder.path / old, merged.path / new, i)
                else:
                    _link(folder.path / old, merged.path / new)
            others = {k: v for k, v in record.items() if k not in _COMMITTED}
            if prefix_ids:
                others["prefixes"] = others.get("prefixes", 0) + 1
            merged.commit(shard, [*files.values()], record["count"], info, **others)
    return merged


def export(store: str | os.PathLike, out: str | os.PathLike) -> int:
    """Export a store in the format of the released code: one ``.npz`` file per image.

    ``OUT/features/IMAGE_ID.npz`` contains ``features`` (N, Dv) and ``g_feature`` (1, Dc), both
    float32; ``OUT/captions.json`` contains the captions in COCO format, and ``OUT/store.json``
    identifies the store. Existing files are kept, so an interrupted export can be continued.

    Args:
        store: Folder of a finished store.
        out: Folder to write.

    Returns:
        Number of images.

    Raises:
        MissingFileError: If there is no store.
        UserError: If it is unfinished, an image id cannot be a file name or is not unique, or the
            folder contains the export of another store.
    """
    reader = FeatureStore(store)
    if not reader.num_patches:
        raise UserError(f"{store} has no patch features, which the released code reads")
    ids = reader.image_ids
    # Some file systems do not distinguish upper and lower case, or Unicode's normal forms.
    refuse_repeated(
        lambda: (unicodedata.normalize("NFC", image_id).casefold() for image_id in ids),
        f"image ids of {store}, in lower case,",
        "files would be overwritten",
    )
    wrong = [name for name in ids if "/" in name or name.startswith(".")]
    if wrong:
        raise UserError(f"image_id={wrong[0]!r} of {store} cannot be the name of a file")
    folder, marker = Path(out) / "features", Path(out) / _MARKER
    of = {"store": reader.identity}
    if folder.exists() and (not marker.is_file() or json.loads(marker.read_text()) != of):
        raise UserError(f"{out} contains the export of another store: pass another folder")
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_json(marker, of)
    folder.mkdir(exist_ok=True)
    for i, image_id in enumerate(tqdm(ids, desc="export", unit="img")):
        path = folder / f"{image_id}.npz"
        if not path.exists():
            with atomic_write(path) as file:
                np.savez_compressed(
                    file,
                    features=reader.patch_feats(i).numpy(),
                    g_feature=reader.global_feats(i)[None].numpy(),
                )
    images = (reader.record(i) for i in range(len(reader)))
    write_coco_captions(
        Path(out) / "captions.json",
        ((x["image_id"], x.get("file_name", ""), x["captions"]) for x in images),
    )
    return len(ids)


def _refuse_shared_names(stores: Sequence[str | os.PathLike]) -> None:
    readers = [FeatureStore(path) for path in stores]
    where = ", ".join(map(str, stores))

    def records() -> Iterator[dict[str, Any]]:
        return (reader.record(i) for reader in readers for i in range(len(reader)))

    refuse_repeated(
        lambda: (record["image_id"] for record in records()),
        f"image ids of {where}",
        "pass --prefix-ids to put the number of its store before each id",
    )
    refuse_repeated(
        lambda: (record["file_name"] for record in records() if "file_name" in record),
        f"file names of {where}",
        "pass --prefix-ids to put the number of its store before each file name",
    )


def _write_prefixed(old: Path, new: Path, number: int) -> None:
    with open(old, "rb") as source, atomic_write(new) as target:
        for line in source:
            record = json.loads(line)
            record["image_id"] = f"{number}-{record['image_id']}"
            if "file_name" in record:
                record["file_name"] = f"{number}/{record['file_name']}"
            target.write(image_line(record))


def _open(path: str | os.PathLike) -> ShardFolder:
    FeatureStore(path)  # raises if files are missing or the store is unfinished
    return ShardFolder(path, FORMAT)


def _head(folder: ShardFolder) -> bytes | None:
    path = folder.path / CLIP_HEAD
    return path.read_bytes() if path.is_file() else None


def _is_alone(folder: ShardFolder) -> bool:
    return not folder.manifest["settings"].get("images", True)


def _settings(folder: ShardFolder, of_captions: bool) -> dict:
    """Return the settings of all features, or those on which the features of captions depend."""
    settings = {k: v for k, v in folder.manifest["settings"].items() if k != "source"}
    values = settings | folder.manifest["info"]
    return {k: values.get(k) for k in _OF_CAPTIONS} if of_captions else values


def _link(old: Path, new: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    try:
        os.link(old, new)
    except OSError:
        copy_file(old, new)
