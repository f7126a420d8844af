"""Load a causal language model of transformers from a folder or by name."""

from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError

_FIX = (
    "pass a folder with config.json, tokenizer and weights (.safetensors), or create one without "
    "weights with pcm build-language-model CAPTIONS --out FOLDER and set "
    "pretrained=False"
)


def load_language_model(name: str, pretrained: bool = True) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Only safetensors weights are read, and no code from the folder is run.

    Args:
        name: A folder, or the name of a model on the Hugging Face Hub.
        pretrained: Whether to load the weights; otherwise they are random. Defaults to True.

    Returns:
        The tokenizer, and the model in float32.

    Raises:
        MissingFileError: If the model does not exist, or a file is missing in its folder.
        UserError: If the tokenizer has no EOS token, or more tokens than the model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise MissingFileError(f"{name} has no config.json: {_FIX}")
        if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
            raise MissingFileError(f"{name} has no tokenizer.json or vocab.json: {_FIX}")
        if pretrained and not any(folder.glob("*.safetensors")):
            raise MissingFileError(
                f"{name} has no weights (.safetensors) but pretrained=True: add them, or set "
                "pretrained=False to train from random weights"
            )
    safe = {"trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(name, **safe)
    except OSError as error:
        raise MissingFileError(
            f"`language_model` must be a folder or a model that transformers finds, got `{name}`: "
            f"{_FIX}"
        ) from error
    tokenizer: Any = AutoTokenizer.from_pretrained(name, **safe)
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {name} has no EOS token (eos_token): {_FIX}")
    if pretrained:
        model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, **safe)
    else:
        model = AutoModelForCausalLM.from_config(config, **safe)
    size = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise UserError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, but the model only {size}: use "
            "tokenizer and model of the same folder"
        )
    # The folder's settings for sampling do not apply to beam search.
    model.generation_config = GenerationConfig()
    return tokenizer, model.float()
