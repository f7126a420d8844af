"""Features of photos without captions, for ``pcm report --photos``."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config
from torch import Tensor

from pcm_plugin.engine.config_modules import LOOPS, list_input_files
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.evaluation.domain_gap import feature_moments
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.concept_set import ConceptSet, load_concepts
from pcm_plugin.formats.feature_shard import FORMAT
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.images.folder import list_images
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.formats.shards import ShardFolder
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.synthesis.extract.extract_features import extract_features
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.extract.settings import ExtractSettings

CACHE = "photos"
"""Folder of extracted features in the work folder."""
_SHARD_SIZE = 1000
_CHUNK = 8192
_COMPARED = ("model", "pretrained", "pool", "patch_mode")


def open_photos(
    cfg: Config, args: argparse.Namespace, train: FeatureStore, device: str
) -> tuple[FeatureStore, int]:
    """Open a store of photos, or extract the features of a folder of images once.

    The features of a folder are kept in ``WORK_DIR/photos``, under a name that depends on the
    settings and on the names, sizes and times of the files.

    Args:
        cfg: Config of the run, with the CLIP.
        args: Parsed arguments.
        train: Training store.
        device: Device of CLIP.

    Returns:
        The store, and the number of photos that could not be read.

    Raises:
        MissingFileError: If the folder does not exist.
        UserError: If there are no images, none can be read, or the CLIP is another.
    """
    if cfg.get("clip") is None:
        raise UserError(
            "--photos needs the CLIP of the features in the config: set "
            "clip=dict(model_name=..., pretrained=...)"
        )
    clip_folder = Path(cfg.clip.model_name.removeprefix("local-dir:"))
    if cfg.clip.model_name.startswith("local-dir:") and not clip_folder.is_dir():
        raise MissingFileError(
            f"no CLIP in the folder {clip_folder} of `clip.model_name`: run the command in the "
            "folder where the training was started, or pass a config with its path (--config)"
        )
    needs_patches = train.num_patches > 0
    settings = ExtractSettings(
        cfg.clip.model_name,
        cfg.clip.get("pretrained"),
        cfg.clip.get("pool", 1),
        cfg.clip.get("patch_mode", "plain"),
        patches=needs_patches,
    )
    check_clip(settings.as_record(), "`clip` of the config", train, needs_patches)
    folder = photos_path(cfg, args)
    if not folder.is_dir():
        raise MissingFileError(f"no folder of photos at {folder}")
    if (folder / "manifest.json").is_file():
        store = FeatureStore(folder)
        store.require_images("--photos")
        check_clip(store.settings, str(folder), train, needs_patches)
        if needs_patches and not store.num_patches:
            raise UserError(
                f"{folder} has no patch features, which this captioner reads: extract them without "
                "--no-patches"
            )
    else:
        files = list_images(folder).files
        if not files:
            raise UserError(f"--photos {folder} must contain images, got a folder without any")
        facts = [[n, (folder / n).stat().st_size, (folder / n).stat().st_mtime_ns] for n in files]
        key = fingerprint({"settings": settings.as_record(), "files": facts})
        path = args.work_dir / CACHE / key[:16]
        source = open_source(folder, "none", _SHARD_SIZE)
        extract_features(source, settings, path, device=device)
        store = FeatureStore(path)
    if not len(store):
        raise UserError(f"none of the photos in {folder} can be read")
    return store, ShardFolder(store.path, FORMAT).num_skipped


def photos_path(cfg: Config, args: argparse.Namespace) -> Path:
    """Return the value of ``--photos``, or the store of the photos of the data set.

    Raises:
        UserError: If ``--photos`` has no value and the data set no photos.
    """
    if args.photos is not True:
        return Path(args.photos)
    photos = cfg.get("photos")
    if photos is None:
        raise UserError(
            "--photos without a folder needs a data set with photos (pcm make-dataset --photos): "
            "pass a folder of photos"
        )
    return Path(photos.store)


def check_clip(
    settings: dict[str, object], name: str, train: FeatureStore, with_patches: bool
) -> None:
    """Check that features are from the CLIP of the training.

    Args:
        settings: Settings of the features, as a store records them.
        name: Their name, for the message.
        train: Training store.
        with_patches: Whether patch features must agree too.

    Raises:
        UserError: If a setting differs.
    """
    defaults = {"pool": 1, "patch_mode": "plain"}
    for key in _COMPARED if with_patches else _COMPARED[:2]:
        found, expected = (s.get(key, defaults.get(key)) for s in (settings, train.settings))
        if found != expected:
            raise UserError(
                f"the photos must have the CLIP of {train.path}, {key}={expected!r}, got "
                f"{key}={found!r} in {name}: use the same CLIP for both"
            )


def find_concepts(cfg: Config) -> ConceptSet | None:
    """Return the concepts of the captioner; None if it has none."""
    loops = [loop for loop in LOOPS if cfg.get(f"{loop}_dataloader") is not None]
    kinds = (FileKind.CONCEPT_SET, FileKind.ENTITY_SET)
    for file in list_input_files(cfg, loops):
        if file.kind in kinds:
            return load_concepts(file.path)
    return None


def write_statistics(path: Path, train: FeatureStore, photos: FeatureStore) -> None:
    """Write mean and standard deviation of each feature of captions, photos and synthetic images.

    Args:
        path: safetensors file to write, with ``text_mean``, ``text_std``, ``photo_mean`` and
            ``photo_std``, and ``synthetic_mean`` and ``synthetic_std`` if there are such images,
            each (Dc,) float32.
        train: Training store.
        photos: Store of photos.
    """
    sets = {"text": (train, "caption_feats", np.arange(train.num_captions))}
    sets["photo"] = (photos, "global_feats", np.arange(len(photos)))
    if train.has_images:
        generated = generated_images(train)
        if len(generated):
            sets["synthetic"] = (train, "global_feats", generated)
    tensors: dict[str, Tensor] = {}
    counts: dict[str, str] = {}
    for name, (store, key, rows) in sets.items():
        moments = feature_moments(_chunks(store, key, rows))
        tensors |= {f"{name}_mean": moments.mean, f"{name}_std": moments.std}
        counts[f"{name}_count"] = str(moments.num_rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, counts)


def generated_images(train: FeatureStore) -> np.ndarray:
    """Return the numbers of the generated images of a training store.

    In a store with a pool of photos, these are the images with captions.
    """
    return np.flatnonzero((np.diff(train.caption_offsets) > 0) & train.is_image)


def _chunks(store: FeatureStore, key: str, rows: np.ndarray) -> Iterator[Tensor]:
    for start in range(0, len(rows), _CHUNK):
        yield store.read_rows(key, rows[start : start + _CHUNK])
