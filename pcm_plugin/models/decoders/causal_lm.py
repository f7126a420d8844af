"""A causal language model of transformers, from a folder or a name."""

from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError

_HOW = (
    "name a folder with config.json, tokenizer and weights (.safetensors), or make one without "
    "weights: python tools/build_language_model.py CAPTIONS --out FOLDER, and pretrained=False"
)


def load_language_model(name: str, pretrained: bool = True) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer.

    Weights are read as safetensors only, and no code of the folder is run.

    Args:
        name: A folder, or a name that transformers finds.
        pretrained: Whether to read its weights; otherwise they are random. Defaults to True.

    Returns:
        The tokenizer and the model, its weights float32.

    Raises:
        MissingFileError: If there is no such model, or its folder lacks a file.
        UserError: If the tokenizer has no end of text, or more tokens than the model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise MissingFileError(f"{name} has no config.json: {_HOW}")
        if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
            raise MissingFileError(f"{name} has no tokenizer.json or vocab.json: {_HOW}")
        if pretrained and not any(folder.glob("*.safetensors")):
            raise MissingFileError(
                f"{name} has no weights (.safetensors), and pretrained=True: set pretrained=False "
                "to train it from random ones, or bring them"
            )
    safe = {"trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(name, **safe)
    except OSError as error:
        raise MissingFileError(
            f"language_model={name!r} is neither a folder here nor a model that transformers "
            f"finds: {_HOW}"
        ) from error
    tokenizer: Any = AutoTokenizer.from_pretrained(name, **safe)
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {name} has no end of text (eos_token): {_HOW}")
    if pretrained:
        model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, **safe)
    else:
        model = AutoModelForCausalLM.from_config(config, **safe)
    size = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise UserError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens but the model {size}: take the "
            "two from one folder"
        )
    # What a folder wants to be sampled like is not how captions are searched.
    model.generation_config = GenerationConfig()
    return tokenizer, model.float()
