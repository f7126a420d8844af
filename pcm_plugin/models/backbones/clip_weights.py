"""Load a CLIP of open_clip with the activation that its weights were trained with.

open_clip has many architectures in two variants, with GELU (``ViT-B-32``) and with QuickGELU
(``ViT-B-32-quickgelu``). The wrong variant gives wrong features without an error. For its own tags
of weights open_clip compares the two; for a weights *file*
:func:`~.weights_file.check_activation` does.
"""

import difflib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import content_id, write_json
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.models.backbones.weights_file import (
    GELU_SUFFIX,
    OPENAI_SIZES,
    check_activation,
    existing_file,
    is_weights_file,
    read_weights_file,
)

_SCHEMAS = ("hf-hub:", "local-dir:")
# What open_clip's errors of a failed download, or of a folder without weights, begin with.
_FAILED_LOADING = ("Failed", "Required pretrained weights")


def architecture(model_name: str) -> str:
    """Return open_clip's name of a model; open_clip does not know our suffix ``-gelu``."""
    if model_name.startswith(_SCHEMAS):
        return model_name
    return model_name.replace("/", "-").removesuffix(GELU_SUFFIX)


def model_identity(model_name: str) -> str:
    """Return the name of a CLIP for files that are shared.

    Args:
        model_name: As in :class:`.OpenCLIPBackbone`.

    Returns:
        ``model_name``; for ``'local-dir:FOLDER'`` the name of the folder and the SHA-256 of its
        content.
    """
    folder = Path(model_name.removeprefix("local-dir:"))
    return content_id(folder) if model_name.startswith("local-dir:") else model_name


def load_clip(model_name: str, pretrained: str | None) -> tuple[Any, Callable[[Any], Tensor]]:
    """Load a CLIP.

    Args:
        model_name: As in :class:`.OpenCLIPBackbone`.
        pretrained: As in :class:`.OpenCLIPBackbone`.

    Returns:
        open_clip's model and its preprocessing of a PIL image.

    Raises:
        MissingFileError: If a local folder or a weights file is missing.
        UserError: If open_clip has no such model or weights, they cannot be downloaded, a weights
            file cannot be read safely or does not fit the model, or the name does not state the
            activation of its weights.
    """
    import open_clip

    name = architecture(model_name)
    is_file = is_weights_file(pretrained)
    _check_model_name(model_name, name, pretrained)
    if is_file:
        path = existing_file(str(pretrained))
        file = read_weights_file(path)
        check_activation(model_name, name, str(path), file.quick_gelu)
        if file.tensors is not None:
            return _build(name, str(path), file.tensors)
        pretrained = str(path.absolute())  # cannot be mistaken for a tag
    elif not name.startswith(_SCHEMAS):
        _check_tag(model_name, name, pretrained)
    with warnings.catch_warnings():
        # With the other activation the features are wrong; open_clip only warns.
        warnings.filterwarnings("error", "QuickGELU mismatch")
        try:
            clip, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained, require_pretrained=True
            )
        except UserWarning as error:
            raise UserError(
                f"`model_name` must have the activation of pretrained={pretrained!r}, got "
                f"`{model_name}` ({error}): add or drop '-quickgelu' at the end of the name"
            ) from error
        except (RuntimeError, AssertionError) as error:
            is_misfit = isinstance(error, AssertionError) or "state_dict" in str(error)
            if is_file and is_misfit:
                raise _misfit(name, str(pretrained), str(error)) from None
            if name.startswith("local-dir:") and is_misfit:
                raise _unusable_folder(model_name, error) from error
            if not str(error).startswith(_FAILED_LOADING):
                raise
            raise UserError(
                f"open_clip cannot load model_name={model_name!r} with pretrained={pretrained!r} "
                f"({error}): check the name and the network connection, or pass "
                "'local-dir:FOLDER' with a folder that has open_clip_config.json and the weights"
            ) from error
        except (FileNotFoundError, ValueError, SafetensorError) as error:
            if not name.startswith("local-dir:"):
                raise
            raise _unusable_folder(model_name, error) from error
    return clip, preprocess


def save_clip_folder(folder: Path, model_name: str, pretrained: str) -> None:
    """Write a CLIP whose weights are a file as a folder for ``local-dir:``.

    The config in the folder states the activation, so that users of the folder need not know it.

    Args:
        folder: Folder to write to. Created if it does not exist.
        model_name: Name of the architecture.
        pretrained: The weights file.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: See :func:`load_clip`.
    """
    import open_clip

    clip, _ = load_clip(model_name, pretrained)
    config = {
        "model_cfg": open_clip.get_model_config(architecture(model_name)),
        "preprocess_cfg": open_clip.get_model_preprocess_cfg(clip),
    }
    if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        open_clip.get_tokenizer(architecture(model_name)).tokenizer.save_pretrained(folder)
    weights = {key: value.contiguous() for key, value in clip.state_dict().items()}
    write_tensors(folder / "open_clip_model.safetensors", weights)
    write_json(folder / "open_clip_config.json", json.loads(json.dumps(config)))


def _check_model_name(model_name: str, name: str, pretrained: str | None) -> None:
    """Check that open_clip has the model, and that it does not come with weights already."""
    import open_clip

    folder = name.removeprefix("local-dir:")
    if folder != name and not Path(folder).is_dir():
        raise MissingFileError(f"model_name={model_name!r}: there is no folder {folder}")
    if name.startswith(_SCHEMAS):
        if pretrained:
            raise UserError(
                f"`pretrained` must be None for model_name={model_name!r}, which comes with its "
                f"weights, got `{pretrained}`: omit it, or pass an architecture such as "
                "'ViT-B-32-quickgelu'"
            )
        return
    known = open_clip.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"such as {', '.join(map(repr, near))}, " if near else ""
        raise UserError(
            f"`model_name` must be an architecture of open_clip, 'hf-hub:ORG/REPO' or "
            f"'local-dir:FOLDER', got `{model_name}`: pass one of open_clip.list_models(), "
            f"{hint}or a folder"
        )


def _check_tag(model_name: str, name: str, pretrained: str | None) -> None:
    import open_clip

    if pretrained and open_clip.get_pretrained_cfg(name, pretrained):
        return
    tags = open_clip.list_pretrained_tags_by_model(name)
    fix = f"one of the tags {', '.join(map(repr, tags))}, or a file" if tags else "a file"
    raise UserError(
        f"`pretrained` must be weights for model_name={model_name!r} that open_clip has, or a "
        f"weights file, got `{pretrained}`: pass {fix}"
    )


def _build(
    name: str, file: str, tensors: Mapping[str, Tensor]
) -> tuple[Any, Callable[[Any], Tensor]]:
    """Build a CLIP in OpenAI's format with weights that are in memory."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = open_clip.get_model_config(name)
    if config is None or config.get("custom_text") or "timm_model_name" in config["vision_cfg"]:
        raise UserError(
            f"{file} has a CLIP in OpenAI's format, which fits architectures such as "
            f"'ViT-B-32-quickgelu', not `{name}`: pass its architecture"
        )
    clip = open_clip.CLIP(**config)
    sizes = {"attn_mask", *OPENAI_SIZES}
    weights = {k: v for k, v in tensors.items() if k.rpartition(".")[-1] not in sizes}
    try:
        clip.load_state_dict(weights)
    except RuntimeError as error:
        raise _misfit(name, file, str(error)) from None
    preprocess_cfg = PreprocessCfg(size=clip.visual.image_size)
    open_clip.set_model_preprocess_cfg(clip, vars(preprocess_cfg))
    return clip, image_transform_v2(preprocess_cfg, is_train=False)


def _unusable_folder(model_name: str, error: Exception) -> UserError:
    lines = (line.strip() for line in str(error).splitlines()[:2])
    return UserError(
        f"`model_name` must be 'local-dir:' and a folder with open_clip's open_clip_config.json "
        f"and weights that fit it, got `{model_name}`: {' '.join(lines)[:300]}"
    )


def _misfit(name: str, file: str, error: str) -> UserError:
    first = next((line.strip() for line in error.splitlines()[1:]), error)
    return UserError(
        f"the weights in {file} do not fit {name} ({first[:200]}): pass the architecture that they "
        "were trained with"
    )
