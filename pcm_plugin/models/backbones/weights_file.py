"""Weights files of CLIPs: read them safely, and check the activation that they need.

Some files show whether their weights were trained with GELU or QuickGELU; the model name must then
agree. For the others the name must state it: ``ViT-B-32-quickgelu``, or ``ViT-B-32-gelu``, a name
that only this package knows.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import sha256
from pcm_plugin.models.backbones.torchscript_archive import is_torchscript, read_torchscript

GELU_SUFFIX, QUICK_GELU_SUFFIX = "-gelu", "-quickgelu"

OPENAI_SIZES = {"input_resolution", "context_length", "vocab_size"}
"""Sizes that OpenAI's code stores next to its weights; no other code does."""


class WeightsFile(NamedTuple):
    """Properties of a weights file.

    Attributes:
        tensors: Weights that open_clip cannot read itself; None where it can.
        quick_gelu: Whether they were trained with QuickGELU; None if the file does not show it.
    """

    tensors: dict[str, Tensor] | None = None
    quick_gelu: bool | None = None


def is_weights_file(pretrained: str | None) -> bool:
    """Return whether ``pretrained`` is a file, not one of open_clip's tags."""
    if not pretrained:
        return False
    # Tags have neither a dot nor a slash.
    return any(c in str(pretrained) for c in "./\\") or Path(pretrained).is_file()


def weights_identity(pretrained: str | None) -> str | None:
    """Return the name of the weights of a CLIP for files that are shared.

    Args:
        pretrained: A tag of open_clip, a weights file, or None.

    Returns:
        The tag; for a file the first digits of its SHA-256.

    Raises:
        MissingFileError: If the file does not exist.
    """
    if not is_weights_file(pretrained):
        return pretrained
    return f"file sha256 {sha256(existing_file(str(pretrained)))[:16]}"


def existing_file(file: str) -> Path:
    """Return the path of a weights file.

    Raises:
        MissingFileError: If the file does not exist.
    """
    if not Path(file).is_file():
        raise MissingFileError(
            "`pretrained` must be a tag of open_clip, such as 'openai', or a weights file, got "
            f"`{file}`: there is no such file"
        )
    return Path(file)


def read_weights_file(path: Path) -> WeightsFile:
    """Inspect a weights file without running anything that it contains.

    Raises:
        UserError: If it cannot be read safely, or has another format.
    """
    if path.suffix in (".npz", ".npy"):  # big_vision's SigLIP: arrays only
        return WeightsFile()
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                keys = list(file.keys())
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is not a safetensors file: {error}") from error
        _check_format(path, keys)
        return WeightsFile()
    if is_torchscript(path):
        archive = read_torchscript(path)
        quick = {"QuickGELU": True, "GELU": False}
        found = {quick[name] for name in archive.classes & quick.keys()}
        return WeightsFile(archive.tensors, found.pop() if len(found) == 1 else None)
    try:
        # Zipped files are only mapped into memory, not read twice.
        loaded = torch.load(path, "cpu", weights_only=True, mmap=_is_zip(path) or None)
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is not a file of weights that can be read safely ({type(error).__name__} "
            f"{first}): pass weights as .safetensors. If you trust the file, convert it: "
            'python -c "import torch, safetensors.torch as s; '
            f"w = torch.load({str(path)!r}, weights_only=False); "
            f"s.save_file(w.get('state_dict', w), {str(path.with_suffix('.safetensors'))!r})\""
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} has no weights of a CLIP: pass a file of open_clip or OpenAI")
    _check_format(path, list(state))
    if state.keys() >= OPENAI_SIZES:
        # OpenAI's code has no other activation.
        return WeightsFile(dict(state), True)
    return WeightsFile()


def check_activation(model_name: str, name: str, file: str, quick_gelu: bool | None) -> None:
    """Check that a model name states the activation of a weights file.

    Args:
        model_name: Name that the user passed.
        name: open_clip's name of the architecture.
        file: The weights file, for messages.
        quick_gelu: As in :class:`WeightsFile`.

    Raises:
        UserError: If the name does not state the activation, or states the wrong one.
    """
    import open_clip

    named = bool(open_clip.get_model_config(name).get("quick_gelu", False))
    base = name.removesuffix(QUICK_GELU_SUFFIX)
    known = set(open_clip.list_models())
    if quick_gelu is not None and quick_gelu != named:
        right = f"{base}{QUICK_GELU_SUFFIX if quick_gelu else GELU_SUFFIX}"
        trained_with = "QuickGELU" if quick_gelu else "GELU"
        if right.removesuffix(GELU_SUFFIX) not in known:
            raise UserError(
                f"the weights in {file} were trained with {trained_with}, and open_clip has "
                f"`{model_name}` with the other activation only: pass their architecture, or "
                "'local-dir:FOLDER' with an open_clip_config.json that states "
                f'"quick_gelu": {str(quick_gelu).lower()}'
            )
        raise UserError(
            f"the model name must be '{right}' for {file}, whose weights were trained with "
            f"{trained_with}, got `{model_name}`: with the other activation the features would be "
            "wrong"
        )
    is_explicit = model_name.endswith((GELU_SUFFIX, QUICK_GELU_SUFFIX))
    has_both = {base, f"{base}{QUICK_GELU_SUFFIX}"} <= known
    if quick_gelu is None and has_both and not is_explicit:
        raise UserError(
            f"the model name must say the activation of the weights in {file}, which do not show "
            f"it, got `{model_name}`: pass '{base}{QUICK_GELU_SUFFIX}' (QuickGELU) or "
            f"'{base}{GELU_SUFFIX}' (GELU). The weights of OpenAI, DFN and MetaCLIP, and those "
            "fine-tuned from them, have QuickGELU; most of LAION and DataComp have GELU"
        )


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_format(path: Path, keys: list[str]) -> None:
    if any(key.startswith(("vision_model.", "text_model.")) for key in keys):
        raise UserError(
            f"{path} has the weights of a CLIP in the format of transformers, which open_clip does "
            "not read: pass a file of open_clip or OpenAI, a tag of open_clip, or a model such as "
            "'hf-hub:timm/vit_base_patch32_clip_224.openai'"
        )
