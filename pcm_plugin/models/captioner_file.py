"""Captioner file: weights, settings, vocabulary and concepts in one safetensors file.

The metadata of the file are JSON texts: ``format``, ``model`` (the config of the captioner without
what only training needs), ``concepts`` (their words; the embeddings are a tensor of that name, and
a text memory is a tensor ``text_memory``), ``clip`` (name, weights, pooling and patch mode, as
OpenCLIPBackbone takes them) and ``about`` (free-form). A PCMNet adds ``vocabulary`` (its words, or
the content of a ``tokenizer.json``), a PrefixCaptioner ``language_model`` (config and tokenizer)
and ``entities`` (words of its prompt; their embeddings are a tensor of that name). Reading the file
builds modules of this package and of transformers only. A tensor that is equal to another one
because a language model shares it is stored once.

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
from pcm_plugin.models.backbones.clip_weights import save_clip_folder
from pcm_plugin.models.backbones.weights_file import is_weights_file
from pcm_plugin.models.captioners.base import Captioner
from pcm_plugin.registry import MODELS

FORMAT = "pcm_plugin.captioner/1"
EXTRA_TENSORS = ("concepts", "text_memory", "entities")
"""Tensors in the file that are not weights; see :meth:`.Captioner.extra_tensors`."""

# Keys that only training needs, and those that the file itself replaces.
_TRAINING_ONLY_KEYS = (
    *("loss", "data_preprocessor", "backbone", "vocabulary", "init_cfg"),
    *("language_model", "pretrained", "freeze_lm"),
)
_PART_KEYS = {
    "neck": (*EXTRA_TENSORS, "text_memory_pairs", "clip_head", "init_cfg"),
    "entity_prompt": ("concepts", "caption_entities", "entity_aliases", "entity_dropout"),
}
_LOCAL = "local-dir:"
_PACKAGE = Path(pcm_plugin.__file__).resolve().parent
_CLIP_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def save_captioner(
    path: str | os.PathLike,
    model: Captioner,
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
        UserError: If the file has another extension, the model does not fit into one file
            (:meth:`.Captioner.file_values`) or contains modules of other packages, CLIP's folder
            has no safetensors, or its weights file cannot be read
            (:func:`~.clip_weights.load_clip`).
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"`path` must end in .safetensors, got `{path}`")
    values = model.file_values()
    config = exportable_config(settings)
    _check_types(config, str(path))
    tensors = {**model.state_dict(), **model.extra_tensors()}
    for key in shared_tensors(tensors):
        del tensors[key]
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
        **values,
        "concepts": model.neck.concept_words,
        "clip": found,
        "about": dict(about or {}),
    }
    metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}
    write_tensors(path, tensors, {"format": FORMAT, **metadata})


def is_captioner(path: str | os.PathLike) -> bool:
    """Return whether a file was written by :func:`save_captioner`.

    Raises:
        UserError: If its name ends in ``.safetensors``, but it cannot be read as such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except OSError:
        return False
    except SafetensorError as error:
        if Path(path).suffix != ".safetensors":
            return False
        raise UserError(
            f"{path} is not a safetensors file, or it is damaged ({error}): copy or export it again"
        ) from error


@MODELS.register_module()
def load_captioner(path: str | os.PathLike, data_preprocessor: dict | None = None) -> Captioner:
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
    facts, tensors = read_captioner_file(path)
    settings, clip = exportable_config(facts["model"]), facts["clip"]
    if clip["pretrained"] and ("/" in clip["pretrained"] or "\\" in clip["pretrained"]):
        raise UserError(
            f"`clip.pretrained` in {path} must be a tag of open_clip, got the file "
            f"`{clip['pretrained']!r}`"
        )
    cls = captioner_class(settings, path)
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
    try:
        arguments = cls.file_arguments(facts)
    except KeyError as error:
        raise UserError(f"{path} is not a captioner: it has no {error}") from error
    model = MODELS.build(
        {**settings, **arguments, "backbone": backbone, "data_preprocessor": data_preprocessor}
    )
    extra = {key: tensors.pop(key) for key in EXTRA_TENSORS if key in tensors}
    model.set_extra_tensors(extra, facts)
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    for key, stored in shared_tensors(model.state_dict()).items():
        if stored in tensors:
            tensors.setdefault(key, tensors[stored])
    check_clip(tensors, model, path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not match its own settings: {error}") from None
    return model.eval()


def read_captioner_file(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the metadata and the tensors of a captioner file.

    Raises:
        UserError: If it is another file.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UserError(
                    f"{path} must be a captioner file, got {metadata.get('format') or 'weights'}: "
                    "write one with pcm export CONFIG CHECKPOINT"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        facts = {key: json.loads(text) for key, text in metadata.items() if key != "format"}
        if missing := [key for key in ("model", "clip", "concepts") if key not in facts]:
            raise UserError(f"{path} is not a captioner: it has no {', '.join(missing)}")
        return facts, tensors
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} is not a captioner, or it is damaged ({type(error).__name__} {error}): copy "
            "or export it again"
        ) from error


def captioner_class(settings: Mapping[str, Any], path: Path) -> type[Captioner]:
    """Return the class of the captioner in a captioner file.

    Args:
        settings: Config of the captioner in the file.
        path: The file, for the message.

    Raises:
        UserError: If it is no captioner, or has modules of other packages.
    """
    _check_types(settings, str(path))
    cls = MODELS.get(settings["type"])
    if not (isinstance(cls, type) and issubclass(cls, Captioner)):
        raise UserError(f"`model.type` in {path} must be a captioner, got {settings['type']!r}")
    return cls


def exportable_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a captioner without the keys that a captioner file does not keep.

    Args:
        settings: The config.

    Returns:
        A copy of JSON values.
    """
    config = {key: value for key, value in settings.items() if key not in _TRAINING_ONLY_KEYS}
    for part, keys in _PART_KEYS.items():
        if config.get(part) is not None:
            config[part] = {k: v for k, v in config[part].items() if k not in keys}
    return json.loads(json.dumps(config))


def shared_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return the names of tensors that are the same as an earlier one, with the name of that one.

    A language model may use its input embeddings as output embeddings too.
    """
    first: dict[tuple, str] = {}
    shared = {}
    for key, value in tensors.items():
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        if value.numel() and first.setdefault(place, key) != key:
            shared[key] = first[place]
    return shared


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
