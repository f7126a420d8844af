"""Load a CLIP of open_clip with the activation that its weights were trained with.

open_clip knows many architectures twice, with GELU (``ViT-B-32``) and with QuickGELU
(``ViT-B-32-quickgelu``). The wrong one gives wrong features without an error. open_clip compares
its own tags of weights with the name. A weights *file* is checked here: if it shows its activation,
that must be the name's; if it does not, the name must say it, as ``ViT-B-32-quickgelu`` or, a name
that only this package knows, ``ViT-B-32-gelu``.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import content_id, sha256, write_json
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.models.backbones.torchscript_archive import is_torchscript, read_torchscript

_GELU, _QUICK_GELU = "-gelu", "-quickgelu"
# Sizes that OpenAI's code keeps among its weights; no other code does.
_OPENAI_SIZES = {"input_resolution", "context_length", "vocab_size"}
_SCHEMAS = ("hf-hub:", "local-dir:")


class _WeightsFile(NamedTuple):
    """Properties of a weights file.

    Attributes:
        tensors: Weights that open_clip cannot read by itself; None where it can.
        quick_gelu: Their activation, None if they do not show it.
    """

    tensors: dict[str, Tensor] | None = None
    quick_gelu: bool | None = None


def is_weights_file(pretrained: str | None) -> bool:
    """Return whether ``pretrained`` names a file, not a tag of open_clip's."""
    if not pretrained:
        return False
    # Tags have neither a dot nor a slash.
    return any(c in str(pretrained) for c in "./\\") or Path(pretrained).is_file()


def weights_identity(pretrained: str | None) -> str | None:
    """Name the weights of a CLIP in files that are passed on.

    Args:
        pretrained: A tag of open_clip's, a weights file, or None.

    Returns:
        The tag; of a file the beginning of its SHA-256.
    """
    if not is_weights_file(pretrained):
        return pretrained
    return f"file sha256 {sha256(_existing(str(pretrained)))[:16]}"


def architecture(model_name: str) -> str:
    """Return open_clip's name of a model, which does not know our ``-gelu``."""
    if model_name.startswith(_SCHEMAS):
        return model_name
    return model_name.replace("/", "-").removesuffix(_GELU)


def load_clip(model_name: str, pretrained: str | None) -> tuple[Any, Callable[[Any], Tensor]]:
    """Load a CLIP; see :class:`OpenCLIPBackbone` for the arguments.

    Returns:
        open_clip's model and its preprocessing of a PIL image.

    Raises:
        MissingFileError: If a local folder or a weights file is missing.
        RuntimeError: If open_clip knows no such model, or finds no weights.
        UserError: If a weights file cannot be read safely, does not fit the model, or the name
            does not say the activation of its weights.
    """
    import open_clip

    name = architecture(model_name)
    folder = name.removeprefix("local-dir:")
    if folder != name and not Path(folder).is_dir():
        raise MissingFileError(f"model_name={model_name!r}: there is no folder {folder}")
    if name.startswith(_SCHEMAS) and pretrained:
        raise UserError(
            f"`pretrained` must be None for model_name={model_name!r}, which brings its weights, "
            f"got `{pretrained}`: leave it out, or name an architecture, as 'ViT-B-32-quickgelu'"
        )
    is_file = is_weights_file(pretrained)
    if is_file:
        path = _existing(str(pretrained))
        file = _read_file(path)
        _check_activation(model_name, name, str(path), file.quick_gelu)
        if file.tensors is not None:
            return _build(name, str(path), file.tensors)
        pretrained = str(path.absolute())  # not to be taken for a tag
    with warnings.catch_warnings():
        # With the other activation the features are wrong, and nothing else would say so.
        warnings.filterwarnings("error", "QuickGELU mismatch")
        try:
            clip, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained, require_pretrained=True
            )
        except UserWarning as error:
            raise UserError(
                f"model_name={model_name!r} with pretrained={pretrained!r}: {error} "
                "Add or drop '-quickgelu' at the end of the name"
            ) from error
        except (RuntimeError, AssertionError) as error:
            is_misfit = isinstance(error, AssertionError) or "state_dict" in str(error)
            if not is_file or not is_misfit:
                raise
            raise _misfit(name, str(pretrained), str(error)) from None
    return clip, preprocess


def save_clip_folder(folder: Path, model_name: str, pretrained: str) -> None:
    """Write a CLIP whose weights are a file as a folder for ``local-dir:``.

    The folder's config says the activation, so that nobody has to know it again.

    Args:
        folder: Folder to make.
        model_name: Name of the architecture.
        pretrained: The weights file.

    Raises:
        MissingFileError: If there is no such file.
        UserError: As :func:`load_clip`.
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


def _existing(file: str) -> Path:
    if not Path(file).is_file():
        raise MissingFileError(
            f"`pretrained` must be a tag of open_clip's, such as 'openai', or a weights file, got "
            f"`{file}`: there is no such file"
        )
    return Path(file)


def _read_file(path: Path) -> _WeightsFile:
    """Look into a weights file; nothing that it contains is run."""
    if path.suffix in (".npz", ".npy"):  # big_vision's SigLIP: arrays only
        return _WeightsFile()
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                keys = list(file.keys())
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is not a safetensors file: {error}") from error
        _check_format(path, keys)
        return _WeightsFile()
    if is_torchscript(path):
        archive = read_torchscript(path)
        quick = {"QuickGELU": True, "GELU": False}
        found = {quick[name] for name in archive.classes & quick.keys()}
        return _WeightsFile(archive.tensors, found.pop() if len(found) == 1 else None)
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
        raise UserError(f"{path} holds no weights of a CLIP: pass open_clip's or OpenAI's file")
    _check_format(path, list(state))
    if state.keys() >= _OPENAI_SIZES:
        # OpenAI's code has no other activation.
        return _WeightsFile(dict(state), True)
    return _WeightsFile()


def _is_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_format(path: Path, keys: list[str]) -> None:
    if any(key.startswith(("vision_model.", "text_model.")) for key in keys):
        raise UserError(
            f"{path} has the weights of a CLIP in the format of transformers, which open_clip does "
            "not read: pass open_clip's or OpenAI's file, a tag of open_clip's, or a model such as "
            "'hf-hub:timm/vit_base_patch32_clip_224.openai'"
        )


def _check_activation(model_name: str, name: str, file: str, shown: bool | None) -> None:
    """Refuse a name that does not say, or says wrongly, the activation of a weights file."""
    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        return  # open_clip says so
    named = bool(config.get("quick_gelu", False))
    base = name.removesuffix(_QUICK_GELU)
    ways = f"'{base}{_QUICK_GELU}' (QuickGELU) or '{base}{_GELU}' (GELU)"
    known = set(open_clip.list_models())
    if shown is not None and shown != named:
        right = f"{base}{_QUICK_GELU if shown else _GELU}"
        if right.removesuffix(_GELU) not in known:
            raise UserError(
                f"the weights in {file} were trained with {'QuickGELU' if shown else 'GELU'}, and "
                f"open_clip knows `{model_name}` with the other activation only: pass their "
                "architecture, or 'local-dir:FOLDER' with an open_clip_config.json that says "
                f'"quick_gelu": {str(shown).lower()}'
            )
        raise UserError(
            f"the model name must be '{right}' for {file}, whose weights were trained with "
            f"{'QuickGELU' if shown else 'GELU'}, got `{model_name}`: with the other activation "
            "the features would be wrong"
        )
    is_explicit = model_name.endswith((_GELU, _QUICK_GELU))
    both = {base, f"{base}{_QUICK_GELU}"} <= known
    if shown is None and both and not is_explicit:
        raise UserError(
            f"the model name must say the activation of the weights in {file}, which do not show "
            f"it, got `{model_name}`: pass {ways}. OpenAI's, DFN's and MetaCLIP's weights, and "
            "those fine-tuned from them, have QuickGELU; most of LAION's and DataComp's have GELU"
        )


def _build(
    name: str, file: str, tensors: Mapping[str, Tensor]
) -> tuple[Any, Callable[[Any], Tensor]]:
    """Build a CLIP of OpenAI's form with weights that are in memory."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = open_clip.get_model_config(name)
    if config is None or config.get("custom_text") or "timm_model_name" in config["vision_cfg"]:
        raise UserError(
            f"{file} has a CLIP in OpenAI's form, which fits architectures such as "
            f"'ViT-B-32-quickgelu', not `{name}`: pass its own"
        )
    clip = open_clip.CLIP(**config)
    sizes = {"attn_mask", *_OPENAI_SIZES}
    weights = {k: v for k, v in tensors.items() if k.rpartition(".")[-1] not in sizes}
    try:
        clip.load_state_dict(weights)
    except RuntimeError as error:
        raise _misfit(name, file, str(error)) from None
    preprocess_cfg = PreprocessCfg(size=clip.visual.image_size)
    open_clip.set_model_preprocess_cfg(clip, vars(preprocess_cfg))
    return clip, image_transform_v2(preprocess_cfg, is_train=False)


def _misfit(name: str, file: str, error: str) -> ValueError:
    first = next((line.strip() for line in error.splitlines()[1:]), error)
    return ValueError(
        f"the weights in {file} do not fit {name} ({first[:200]}): pass the architecture that they "
        "were trained with"
    )


def model_identity(model: str) -> str:
    """Name a CLIP model in files that are passed on.

    Args:
        model: A name as :class:`OpenCLIPBackbone` takes it.

    Returns:
        The name; of ``'local-dir:FOLDER'`` the folder's own name and its content's SHA-256.
    """
    folder = Path(model.removeprefix("local-dir:"))
    return content_id(folder) if model.startswith("local-dir:") else model
