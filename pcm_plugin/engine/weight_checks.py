"""Check that trained weights are used with the vocabulary and the CLIP of their training.

With another vocabulary of the same size, or features of another CLIP of the same width, weights
load without an error and give wrong captions.
"""

import ast
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from safetensors import safe_open

from pcm_plugin.engine.config_modules import list_input_files
from pcm_plugin.engine.feature_checks import clip_name, find_clips
from pcm_plugin.engine.inputs import hash_inputs
from pcm_plugin.engine.run_record import RECORD
from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.formats.vocabulary_file import load_vocabulary
from pcm_plugin.models.backbones.clip_weights import model_identity
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.models.captioner_file import is_captioner

_TOKENS = (FileKind.VOCABULARY, FileKind.LANGUAGE_MODEL, FileKind.TOKENIZER)
_LOCAL = "local-dir:"


class Origin(NamedTuple):
    """Facts about the training of weights; those that are unknown are None.

    Attributes:
        patch_mode: Attention of CLIP's last block for the patch features.
        clip: Name of the CLIP, as :func:`.find_clips` returns it.
        inputs: Content hashes of input files by key, as :func:`.hash_inputs` returns them.
        vocabulary: Hash of the content of the vocabulary.
    """

    patch_mode: str | None = None
    clip: str | None = None
    inputs: Mapping[str, str] = {}
    vocabulary: str | None = None


def check_origin(
    filename: str, checkpoint: Mapping[str, Any], cfg: Config, loops: Iterable[str]
) -> None:
    """Check that weights were trained with the vocabulary and the CLIP of a config.

    Args:
        filename: File of the weights.
        checkpoint: Its content.
        cfg: Config in which the weights are used. Its input files exist.
        loops: Loops whose feature stores are read: ``val`` or ``test``. Without one, the CLIP
            ``clip`` of the config computes the features.

    Raises:
        UserError: If they were trained with another vocabulary, tokenizer, CLIP or ``patch_mode``.
    """
    loops = list(loops)
    origin = _read_origin(filename, checkpoint)
    clip = cfg.get("clip")
    used = (clip or {}).get("patch_mode", "plain")
    if clip is not None and origin.patch_mode not in (None, used):
        raise UserError(
            f"{filename} was trained on patches of patch_mode={origin.patch_mode!r}, but "
            f"clip.patch_mode is {used!r}: set it to {origin.patch_mode!r}"
        )
    _check_tokens(filename, origin, cfg)
    if origin.clip is None:
        return
    clips = find_clips(cfg, loops)
    if not loops and clip is not None and not _is_missing(clip):
        clips["`clip` of the config"] = _name_of(clip)
    for place, name in clips.items():
        if _content(name) != _content(origin.clip):
            raise UserError(
                f"{filename} was trained on features of the CLIP {origin.clip}, but {place} is of "
                f"{name}: use the CLIP of the training (pcm extract --model, and clip.model_name "
                "and clip.pretrained in the config)"
            )


def _check_tokens(filename: str, origin: Origin, cfg: Config) -> None:
    files = [file for file in list_input_files(cfg, ()) if file.kind in _TOKENS]
    hashes = hash_inputs(cfg, ())
    for file in files:
        known, found = origin.inputs.get(file.key), hashes.get(file.key)
        if file.kind is FileKind.VOCABULARY and origin.vocabulary is not None:
            known = origin.vocabulary
            found = fingerprint(load_vocabulary(file.path).to_json())
        if known is not None and found is not None and known != found:
            raise UserError(
                f"{filename} was trained with another {file.kind.value} than {file.path} "
                f"({file.key}; hash {known} there, {found} here): set {file.key} to that of the "
                "training with --cfg-options"
            )


def _read_origin(filename: str, checkpoint: Mapping[str, Any]) -> Origin:
    if is_captioner(filename):
        with safe_open(filename, "pt") as file:
            metadata = file.metadata()
        clip, words = json.loads(metadata["clip"]), json.loads(metadata.get("vocabulary", "null"))
        # The file may have a copy of a local CLIP, without some files of the original.
        is_local = clip["model_name"].startswith(_LOCAL)
        return Origin(
            clip.get("patch_mode", "plain"),
            None if is_local else _name_of(clip),
            vocabulary=None if words is None else fingerprint(words),
        )
    info = (checkpoint.get("message_hub") or {}).get("runtime_info") or {}
    record = info.get(RECORD) or {}
    return Origin(_patch_mode(checkpoint), record.get("clip"), record.get("inputs") or {})


def _name_of(clip: Mapping[str, Any]) -> str:
    return clip_name(model_identity(clip["model_name"]), weights_identity(clip.get("pretrained")))


def _is_missing(clip: Mapping[str, Any]) -> bool:
    name = clip["model_name"]
    return name.startswith(_LOCAL) and not Path(name.removeprefix(_LOCAL)).is_dir()


def _content(name: str) -> str:
    """Return what identifies a CLIP: for a local folder the hash of its content, not its name."""
    return name[name.find("(sha256 ") :] if "(sha256 " in name else name


def _patch_mode(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the ``patch_mode`` of the features that weights were trained on, None if unknown."""
    text = (checkpoint.get("meta") or {}).get("cfg")
    try:
        statements = ast.parse(text).body if isinstance(text, str) else []
    except SyntaxError:
        return None
    # MMEngine stores the config as the text of a Python file, which is not executed here.
    for statement in statements:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "clip":
            keywords = getattr(statement.value, "keywords", [])
            found = {word.arg: ast.unparse(word.value).strip("'") for word in keywords}
            return found.get("patch_mode", "plain")
    return None
