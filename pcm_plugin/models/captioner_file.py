"""A captioner in one file: weights, settings, vocabulary and concepts, as safetensors.

The metadata of the file are JSON texts: ``format``, ``model`` (the settings of PCMNet, without what
is training's), ``vocabulary`` (its words), ``concepts`` (their words; the embeddings are a tensor
of that name, as a memory of texts is), ``clip`` (open_clip's name, tag of weights and the pooling
of patches) and ``about`` (anything). Reading it builds the package's own modules and nothing else.

CLIP itself is not in the file but named, as open_clip finds it; ``local-dir:`` folders are meant
relative to the file.
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
from pcm_plugin.models.captioners.pcm_net import PCMNet
from pcm_plugin.registry import MODELS

FORMAT = "pcm_plugin.captioner/1"
BROUGHT = ("concepts", "memory")
"""Tensors that are no weights: embeddings of the concepts, and of the texts of a memory."""
# What training needs, and what the file brings itself.
_LEFT_OUT = ("loss", "data_preprocessor", "backbone", "vocabulary", "init_cfg")
_NECK_LEFT_OUT = (*BROUGHT, "clip_head", "init_cfg")
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

    A CLIP in a local folder is copied next to the file, to ``NAME.clip``, unless it lies there
    already; one whose weights are a file is written there as such a folder. The two travel
    together.

    Args:
        path: File to write, ``.safetensors``; its folder is made.
        model: The captioner, its concepts set.
        settings: The config that it was built by.
        clip: ``model``, ``pretrained`` and ``pool`` of the CLIP that made its features, as the
            configs have them.
        about: Anything to say of it, such as its scores. Defaults to None.
        half: Store float16. Defaults to False.

    Raises:
        MissingFileError: If CLIP's folder or weights file is missing.
        UserError: If the file has another ending, the model has no vocabulary, as one with a
            language model, or holds modules of other packages, CLIP's folder has no safetensors,
            or its weights file cannot be read (:func:`~.clip_weights.load_clip`).
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a captioner is a .safetensors file")
    if not isinstance(getattr(model, "vocabulary", None), Vocabulary):
        raise UserError(
            f"a {type(model).__name__} has no vocabulary file, and does not fit into one file: "
            "caption with its config and checkpoint"
        )
    own = _portable(settings)
    _check_types(own, str(path))
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    concepts = list(getattr(model.neck, "concept_words", []))
    for key in BROUGHT:
        brought = getattr(model.neck, key, None)
        if brought is not None and len(brought):
            tensors[key] = brought.detach().cpu().contiguous()
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    weights_file = clip["pretrained"] if is_weights_file(clip.get("pretrained")) else None
    facts = {
        "model": own,
        "vocabulary": model.vocabulary.words,
        "concepts": concepts,
        "clip": {
            "model": _bring_clip(str(clip["model"]), weights_file, path),
            "pretrained": None if weights_file else clip.get("pretrained"),
            "pool": clip.get("pool", 1),
        },
        "about": dict(about or {}),
    }
    metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}
    write_tensors(path, tensors, {"format": FORMAT, **metadata})


def is_captioner(path: str | os.PathLike) -> bool:
    """Whether a file is one that :func:`save_captioner` wrote."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        return False


@MODELS.register_module()
def load_captioner(path: str | os.PathLike, data_preprocessor: dict | None = None) -> PCMNet:
    """Read a captioner, and the CLIP that it names.

    Registered, so that a config can say ``model=dict(type='pcm_plugin.load_captioner', path=...)``.

    Args:
        path: File that :func:`save_captioner` wrote.
        data_preprocessor: MMEngine's; None moves batches to the model's device.

    Returns:
        The captioner in evaluation mode, with a backbone: it takes images.

    Raises:
        MissingFileError: If the file, or the folder of its CLIP, is missing.
        UserError: If it is no such file, asks for anything but the package's own modules, or was
            made with another CLIP than the one found.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no captioner at {path}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UserError(
                    f"{path} holds no captioner but {metadata.get('format') or 'weights alone'}: "
                    "make one with tools/export.py CONFIG CHECKPOINT"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        facts = {key: json.loads(metadata[key]) for key in ("model", "vocabulary", "clip")}
        words = json.loads(metadata["concepts"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a captioner: {type(error).__name__} {error}") from error
    settings, clip = _portable(facts["model"]), facts["clip"]
    if clip["pretrained"] and ("/" in clip["pretrained"] or "\\" in clip["pretrained"]):
        raise UserError(f"{path} names a file as CLIP's weights, {clip['pretrained']!r}")
    _check_types(settings, str(path))
    name = clip["model"]
    if name.startswith(_LOCAL):
        name = f"{_LOCAL}{path.parent / name.removeprefix(_LOCAL)}"
    backbone = {
        "type": "pcm_plugin.OpenCLIPBackbone",
        "model_name": name,
        "pretrained": clip["pretrained"],
        "pool": clip["pool"],
    }
    model = MODELS.build(
        {
            **settings,
            "vocabulary": Vocabulary(facts["vocabulary"]),
            "backbone": backbone,
            "data_preprocessor": data_preprocessor,
        }
    )
    brought = {key: tensors.pop(key) for key in BROUGHT if key in tensors}
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    if "concepts" in brought:
        model.neck.set_concepts(words, brought["concepts"])
    if "memory" in brought:
        model.neck.set_memory(brought["memory"])
    _check_clip(tensors, model, path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit its own settings: {error}") from None
    return model.eval()


def _portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in settings.items() if key not in _LEFT_OUT}
    neck = {key: value for key, value in own["neck"].items() if key not in _NECK_LEFT_OUT}
    return json.loads(json.dumps({**own, "neck": neck}))


def _check_types(node: Any, place: str) -> None:
    """A type may be any function of any package for MMEngine: allow ours alone."""
    if isinstance(node, list):
        for value in node:
            _check_types(value, place)
    if not isinstance(node, dict):
        return
    if "type" in node:
        scope, _, name = str(node["type"]).rpartition(".")
        found = MODELS.module_dict.get(name)
        if scope != "pcm_plugin" or not isinstance(found, type):
            raise UserError(
                f"{place} asks for {node['type']!r}, which is no model of pcm_plugin: a "
                "captioner's file may only name those"
            )
    for value in node.values():
        _check_types(value, place)


def _bring_clip(name: str, weights_file: str | None, path: Path) -> str:
    """Return how the file names its CLIP; local weights are put where the file can find them."""
    if weights_file is not None:
        # Its config says the activation, which a file of weights does not.
        folder = path.with_suffix(".clip")
        save_clip_folder(folder, name, weights_file)
        return f"{_LOCAL}{folder.name}"
    if not name.startswith(_LOCAL):
        return name
    folder, home = Path(name.removeprefix(_LOCAL)).resolve(), path.parent.resolve()
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder of CLIP at {folder}")
    files = sorted(file for pattern in _CLIP_FILES for file in folder.glob(pattern))
    if not any(file.suffix == ".safetensors" for file in files):
        raise UserError(
            f"{folder} has no .safetensors weights: save CLIP so, since a captioner is given away"
        )
    # What comes with the package stays where it is, as what lies beside the file does.
    if folder.parent == home or all(p.is_relative_to(_PACKAGE) for p in (folder, home)):
        return f"{_LOCAL}{os.path.relpath(folder, home)}"
    beside = path.with_suffix(".clip")
    beside.mkdir(exist_ok=True)
    for file in files:
        copy_file(file, beside / file.name)
    return f"{_LOCAL}{beside.name}"


def _check_clip(tensors: Mapping[str, torch.Tensor], model: PCMNet, path: Path) -> None:
    key = "neck.clip_proj"
    if key not in tensors or model.backbone is None:
        return
    here = model.backbone.clip_head()[CLIP_HEAD_KEYS[-1]]
    there = tensors[key]
    # The weights may have been rounded to float16.
    if here.shape != there.shape or not torch.allclose(here, there, atol=1e-3, rtol=1e-3):
        raise UserError(
            f"{path} was trained on another CLIP than {model.backbone.model_name} is here: get the "
            "one whose features it was trained on"
        )
