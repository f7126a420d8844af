"""Settings of the search in a captioner file."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.image_ids import name_some
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.models.captioner_file import (
    FORMAT,
    captioner_class,
    exportable_config,
    read_captioner_file,
    shared_tensors,
)
from pcm_plugin.models.captioners.base import Captioner


def write_decoding(path: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Change settings of the search in a captioner file, which is replaced atomically.

    Args:
        path: File of :func:`~pcm_plugin.models.captioner_file.save_captioner`.
        settings: New values by name, see :meth:`.DecodingConfig.updated`.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it is another file, or a setting is unknown or out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no captioner at {path}")
    facts, tensors = read_captioner_file(path)
    stored = facts["model"].get("decoding") or {}
    old = captioner_class(facts["model"], path).default_decoding.updated(stored)
    new = old.updated(settings)
    changes = {key: value for key, value in asdict(new).items() if value != getattr(old, key)}
    facts["model"] = {**facts["model"], "decoding": {**stored, **settings, **changes}}
    metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}
    write_tensors(path, tensors, {"format": FORMAT, **metadata})


def check_same_captioner(
    path: str | os.PathLike,
    model: Captioner,
    settings: Mapping[str, Any],
    ignored: Collection[str] = (),
) -> None:
    """Check that a captioner file holds a model: its weights, parts and settings of the search.

    Args:
        path: File of :func:`~pcm_plugin.models.captioner_file.save_captioner`. Its weights may be
            rounded to float16.
        model: The captioner, with or without a backbone.
        settings: The config that the captioner was built from.
        ignored: Settings of the search that may differ. Defaults to none.

    Raises:
        UserError: If it is another file, or something differs. The message names the differences.
    """
    path = Path(path)
    facts, tensors = read_captioner_file(path)
    differences = [*_different_tensors(tensors, model)]
    values = {**model.file_values(), "concepts": model.neck.concept_words}
    differences += [key for key, value in values.items() if facts.get(key) != value]
    configs = [exportable_config(config) for config in (facts["model"], settings)]
    stored, _ = [config.pop("decoding", None) for config in configs]
    keys = sorted({*configs[0], *configs[1]})
    differences += [f"model.{key}" for key in keys if configs[0].get(key) != configs[1].get(key)]
    search = asdict(model.default_decoding.updated(stored or {}))
    for key, value in asdict(model.decoding).items():
        if key not in ignored and search[key] != value:
            differences.append(f"model.decoding.{key}={search[key]!r} instead of {value!r}")
    if differences:
        raise UserError(
            f"{path} must hold the captioner of this config and checkpoint, but it has other "
            f"values of {name_some(differences)}: write it with pcm export from the same config, "
            "checkpoint and --cfg-options"
        )


def _different_tensors(stored: Mapping[str, torch.Tensor], model: Captioner) -> Iterator[str]:
    """Yield the names of tensors that a captioner file lacks, or has with other values."""
    expected = {**model.state_dict(), **model.extra_tensors()}
    expected = {key: x for key, x in expected.items() if not key.startswith("backbone.")}
    for key in shared_tensors(expected):
        del expected[key]
    for key in sorted({*stored, *expected}):
        value, own = stored.get(key), expected.get(key)
        if value is None or own is None or not torch.equal(value, own.cpu().to(value.dtype)):
            yield key
