"""Captioner file: weights, settings, vocabulary and concepts in one safetensors file.

The metadata of the file are JSON texts: ``format``, ``model`` (the config of PCMNet without what
only training needs), ``vocabulary`` (its words), ``concepts`` (their words; the embeddings are a
tensor of that name, and a text memory is a tensor ``text_memory``), ``clip`` (name, weights,
pooling and patch mode, as OpenCLIPBackbone takes them) and ``about`` (free-form). Reading the file
builds modules of this package only.

CLIP itself is not in the file, but named as open_clip finds it. ``local-dir:`` folders are relative
to the file.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

import pcm_plugin
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import copy_file
from pcm_plugin.formats.clip_head import CLIP_HEAD_KEYS
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models.backbones.clip_weights import save_clip_folder
from pcm_plugin.models.backbones.weights_file import is_weights_file
from pcm_plugin.models.captioners.base import Captioner
from pcm_plugin.models.captioners.pcm_net import PCMNet
from pcm_plugin.registry import MODELS

FORMAT = "pcm_plugin.captioner/1"
EXTRA_TENSORS = ("concepts", "text_memory")
"""Tensors in the file that are not weights; see :meth:`.Neck.extra_tensors`."""

# Keys that only training needs, and those that the file itself replaces.
_TRAINING_ONLY_KEYS = ("loss", "data_preprocessor", "backbone", "vocabulary", "init_cfg")
_NECK_FILE_KEYS = (*EXTRA_TENSORS, "clip_head", "init_cfg")
_LOCAL = "local-dir:"
_PACKAGE = Path(pcm_plugin.__file__).resolve().parent
_CLIP_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def save_captioner(
    path: str | os.PathLike,
    model: PCMNet,
    settings: Mapping[str, Any],
    clip: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a captioner to one file.

    A CLIP in a local folder is copied to ``NAME.clip`` next to the file, unless it is already next
    to it. A CLIP with a weights file is saved there as such a folder. File and folder must be moved
    together.

    Args:
        path: File to write, ``.safetensors``; its folder is created.
        model: The captioner, with its concepts.
        settings: The config that the captioner was built from.
        clip: ``model_name``, ``pretrained``, ``pool`` and ``patch_mode`` of the CLIP that computed
            the features, as in configs.
        about: Facts to store, such as scores. Defaults to None.
        half: Whether to store float16. Defaults to False.

    Raises:
        MissingFileError: If CLIP's folder or weights file is missing.
        UserError: If the file has another extension, the model is not a PCMNet or contains modules
            of other packages, CLIP's folder has no safetensors, or its weights file cannot be read
            (:func:`~.clip_weights.load_clip`).
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"`path` must end in .safetensors, got `{path}`")
    if not isinstance(model, PCMNet):
        raise UserError(
            f"`model` must be a PCMNet, got a `{type(model).__name__}`, which has no vocabulary "
            "file and does not fit into one file: use its config and checkpoint"
        )
    config = _exportable_config(settings)
    _check_types(config, str(path))
    tensors = {**model.state_dict(), **model.neck.extra_tensors()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    weights_file = clip["pretrained"] if is_weights_file(clip.get("pretrained")) else None
    found = {
        "model_name": _copy_local_clip(str(clip["model_name"]), weights_file, path),
        "pretrained": None if weights_file else clip.get("pretrained"),
        "pool": clip.get("pool", 1),
    }
    if clip.get("patch_mode", "plain") != "plain":
        found["patch_mode"] = clip["patch_mode"]
    facts = {
        "model": config,
        "vocabulary": model.vocabulary.words,
        "concepts": model.neck.concept_words,
        "clip": found,
        "about": dict(about or {}),
    }
    metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}
    write_tensors(path, tensors, {"format": FORMAT, **metadata})


def is_captioner(path: str | os.PathLike) -> bool:
    """Return whether a file was written by :func:`save_captioner`."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        return False


@MODELS.register_module()
def load_captioner(path: str | os.PathLike, data_preprocessor: dict | None = None) -> PCMNet:
    """Read a captioner file, and load the CLIP that it names.

    The function is registered, so that a config can use
    ``model=dict(type='pcm_plugin.load_captioner', path=...)``.

    Args:
        path: File that :func:`save_captioner` wrote.
        data_preprocessor: MMEngine's data preprocessor. None moves batches to the model's device.

    Returns:
        The captioner in evaluation mode, with a backbone, so that its input is images.

    Raises:
        MissingFileError: If the file or the folder of its CLIP is missing.
        UserError: If it is another file, names modules of other packages, or was made with another
            CLIP than the one found.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no captioner at {path}")
    facts, tensors = _read_file(path)
    settings, clip = _exportable_config(facts["model"]), facts["clip"]
    if clip["pretrained"] and ("/" in clip["pretrained"] or "\\" in clip["pretrained"]):
        raise UserError(
            f"`clip.pretrained` in {path} must be a tag of open_clip, got the file "
            f"`{clip['pretrained']!r}`"
        )
    _check_types(settings, str(path))
    name = clip["model_name"]
    if name.startswith(_LOCAL):
        name = f"{_LOCAL}{path.parent / name.removeprefix(_LOCAL)}"
    backbone = {
        "type": "pcm_plugin.OpenCLIPBackbone",
        "model_name": name,
        "pretrained": clip["pretrained"],
        "pool": clip["pool"],
        "patch_mode": clip.get("patch_mode", "plain"),
        "defer_text": True,
    }
    model = MODELS.build(
        {
            **settings,
            "vocabulary": Vocabulary(facts["vocabulary"]),
            "backbone": backbone,
            "data_preprocessor": data_preprocessor,
        }
    )
    extra = {key: tensors.pop(key) for key in EXTRA_TENSORS if key in tensors}
    model.neck.set_extra_tensors(extra, facts["concepts"])
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    check_clip(tensors, model, path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not match its own settings: {error}") from None
    return model.eval()


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the metadata and the tensors of a captioner file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UserError(
                    f"{path} must be a captioner file, got {metadata.get('format') or 'weights'}: "
                    "write one with pcm export CONFIG CHECKPOINT"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        keys = ("model", "vocabulary", "clip", "concepts")
        return {key: json.loads(metadata[key]) for key in keys}, tensors
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a captioner: {type(error).__name__} {error}") from error


def _exportable_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the keys that a captioner file does not keep."""
    config = {key: value for key, value in settings.items() if key not in _TRAINING_ONLY_KEYS}
    neck = {key: value for key, value in config["neck"].items() if key not in _NECK_FILE_KEYS}
    return json.loads(json.dumps({**config, "neck": neck}))


def _check_types(node: Any, place: str) -> None:
    """Refuse types other than the models of this package: MMEngine would call any function."""
    if isinstance(node, list):
        for value in node:
            _check_types(value, place)
    if not isinstance(node, dict):
        return
    if "type" in node:
        scope, _, name = str(node["type"]).rpartition(".")
        cls = MODELS.module_dict.get(name)
        if scope != "pcm_plugin" or not isinstance(cls, type):
            raise UserError(
                f"`type` in a captioner file must be a model of pcm_plugin, got {node['type']!r} "
                f"in {place}"
            )
    for value in node.values():
        _check_types(value, place)


def _copy_local_clip(name: str, weights_file: str | None, path: Path) -> str:
    """Return the name of a CLIP for the file; local weights are copied next to it."""
    if weights_file is not None:
        # The folder's config states the activation, which a weights file does not.
        folder = path.with_suffix(".clip")
        save_clip_folder(folder, name, weights_file)
        return f"{_LOCAL}{folder.name}"
    if not name.startswith(_LOCAL):
        return name
    folder, home = Path(name.removeprefix(_LOCAL)).resolve(), path.parent.resolve()
    if not folder.is_dir():
        raise MissingFileError(f"no folder of a CLIP at {folder}")
    files = sorted(file for pattern in _CLIP_FILES for file in folder.glob(pattern))
    if not any(file.suffix == ".safetensors" for file in files):
        raise UserError(
            f"{folder} must contain .safetensors weights, got none: save CLIP in that format, "
            "since a captioner file is meant to be shared"
        )
    # A folder of the package or next to the file stays where it is.
    if folder.parent == home or all(p.is_relative_to(_PACKAGE) for p in (folder, home)):
        return f"{_LOCAL}{os.path.relpath(folder, home)}"
    copy = path.with_suffix(".clip")
    copy.mkdir(exist_ok=True)
    for file in files:
        copy_file(file, copy / file.name)
    return f"{_LOCAL}{copy.name}"


def check_clip(
    tensors: Mapping[str, torch.Tensor], model: Captioner, path: str | os.PathLike
) -> None:
    """Check that the CLIP head of trained weights is that of the backbone.

    Args:
        tensors: The weights by name. Without a CLIP head they are not checked.
        model: The captioner.
        path: File of the weights, for the message.

    Raises:
        UserError: If the heads differ, so that the weights belong to another CLIP.
    """
    key = "neck.matcher.clip_head.proj"
    if key not in tensors or model.backbone is None:
        return
    actual = model.backbone.clip_head()[CLIP_HEAD_KEYS[-1]]  # (Dv, Dc)
    expected = tensors[key]
    # The weights may have been rounded to float16.
    if actual.shape != expected.shape or not torch.allclose(actual, expected, atol=1e-3, rtol=1e-3):
        raise UserError(
            f"{path} was trained on features of another CLIP than {model.backbone.model_name} on "
            "this machine: name or install the CLIP that computed them"
        )
