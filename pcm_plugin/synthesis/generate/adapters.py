"""LoRA weights and textual inversions of a diffusion pipeline."""

import importlib.util
import math
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import sha256

_SUFFIX = ".safetensors"
# Endings of the names of LoRA matrices: of peft, of diffusers before peft, and of kohya.
_LORA_ENDINGS = (
    *("lora_A.weight", "lora_B.weight"),
    *("lora.down.weight", "lora.up.weight"),
    *("lora_down.weight", "lora_up.weight"),
)
# The key of an embedding in files of AUTOMATIC1111's web UI, which name the token by the file.
_UNNAMED_EMBEDDING = "emb_params"


def check_adapters(lora: str | None, lora_scale: float, textual_inversion: str | None) -> None:
    """Check the settings of LoRA weights and of a textual inversion.

    Args:
        lora: See :class:`~pcm_plugin.synthesis.generate.settings.GenerateSettings`, as the others.
        lora_scale: Scale of the LoRA weights.
        textual_inversion: Embedding of a new token.

    Raises:
        MissingFileError: If a local file is missing.
        UserError: If a name does not end in .safetensors, the scale is not a finite number or has
            no effect, or peft is not installed.
    """
    for name, value in (("lora", lora), ("textual_inversion", textual_inversion)):
        if value is not None:
            _check_file(name, value)
    is_number = isinstance(lora_scale, int | float) and not isinstance(lora_scale, bool)
    if not is_number or not math.isfinite(lora_scale):
        raise UserError(f"lora_scale must be a finite number, got {lora_scale!r}")
    if lora is None and lora_scale != 1:
        raise UserError(f"lora_scale={lora_scale} has no effect without lora: set lora")
    if lora is not None and importlib.util.find_spec("peft") is None:
        raise UserError("LoRA weights need peft: pip install 'pcm-plugin[lora]'")


def adapter_id(name: str) -> str:
    """Return what identifies a file in the settings of a run: a local one by its content."""
    return f"sha256 {sha256(Path(name))[:16]}" if Path(name).is_file() else name


def load_lora(pipeline: Any, name: str, scale: float) -> None:
    """Add LoRA weights to the weights of a pipeline.

    The sum is as fast as the pipeline without them.

    Args:
        pipeline: Pipeline of diffusers.
        name: Local file, or OWNER/NAME/FILE on the Hugging Face Hub.
        scale: Factor of the weights.

    Raises:
        UserError: If the pipeline does not accept LoRA weights, or these are for another model.
    """
    if not hasattr(pipeline, "load_lora_weights"):
        raise UserError(f"{type(pipeline).__name__} does not accept LoRA weights: leave out lora")
    path = _local_file(name)
    matrices = sum(key.endswith(_LORA_ENDINGS) for key in _keys(path))
    if not matrices:
        raise UserError(f"{name} contains no LoRA weights")
    try:
        pipeline.load_lora_weights(
            str(path.parent), weight_name=path.name, use_safetensors=True, adapter_name="lora"
        )
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the LoRA weights {name} do not fit {type(pipeline).__name__}: {error}"
        ) from None
    parts = [part for part in pipeline.components.values() if hasattr(part, "state_dict")]
    matrix = (".lora_A.", ".lora_B.")
    loaded = sum(any(m in key for m in matrix) for part in parts for key in part.state_dict())
    if loaded != matrices:
        raise UserError(
            f"the LoRA weights {name} are for another model: {loaded} of {matrices} matrices fit "
            f"this {type(pipeline).__name__}"
        )
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()


def load_textual_inversion(pipeline: Any, name: str, prompts: str) -> None:
    """Add the token of a textual inversion to a pipeline.

    Args:
        pipeline: Pipeline of diffusers.
        name: Local file, or OWNER/NAME/FILE on the Hugging Face Hub.
        prompts: Prompt and negative prompt, one of which must contain the token.

    Raises:
        UserError: If the pipeline does not accept textual inversions, the embedding is for another
            text encoder, or the prompts do not contain its token.
    """
    if not hasattr(pipeline, "load_textual_inversion"):
        raise UserError(
            f"{type(pipeline).__name__} does not accept textual inversions: leave out "
            "textual_inversion"
        )
    path = _local_file(name)
    keys = _keys(path)
    if len(keys) != 1:
        raise UserError(
            f"{name} must contain one embedding, named by its token, but has {len(keys)} tensors"
        )
    token = path.stem if keys[0] == _UNNAMED_EMBEDDING else keys[0]
    if not re.search(rf"(?<!\w){re.escape(token)}(?!\w)", prompts):
        raise UserError(
            f"the prompt does not contain {token!r}, the token of textual_inversion {name}: set "
            f"prompt, such as '{{}}, {token}'"
        )
    try:
        pipeline.load_textual_inversion(
            str(path.parent), weight_name=path.name, token=token, use_safetensors=True
        )
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the textual inversion {name} does not fit {type(pipeline).__name__}: {error}"
        ) from None


def _check_file(name: str, value: str) -> None:
    if not isinstance(value, str) or not value.endswith(_SUFFIX):
        raise UserError(f"{name} must be a {_SUFFIX} file, got {value!r}")
    parts = Path(value).parts
    # A folder of this name is a local one, in which the file is missing.
    is_hub_name = len(parts) == 3 and parts[0][0] not in "./~" and not Path(parts[0]).is_dir()
    if not Path(value).is_file() and not is_hub_name:
        raise MissingFileError(
            f"no file {value}: {name} must be a local {_SUFFIX} file, or one on the hub as "
            f"OWNER/NAME/FILE{_SUFFIX}"
        )


def _local_file(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    from huggingface_hub import hf_hub_download

    owner, repository, file = name.split("/")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except Exception as error:  # of the hub's client, whose types differ between versions
        raise UserError(f"{name} cannot be downloaded from the hub: {error}") from error


def _keys(path: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from None
