"""Load a causal language model of transformers from a folder, by name or from JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pcm_plugin.errors import MissingFileError, UserError

_FIX = (
    "pass a folder with config.json, tokenizer and weights (.safetensors), or create one without "
    "weights with pcm build-language-model CAPTIONS --out FOLDER and set "
    "pretrained=False"
)


# Facts about an environment or a folder, not about the model.
_NOT_SAVED = ("transformers_version", "auto_map")


class LanguageModel(NamedTuple):
    """A causal language model and its tokenizer.

    Attributes:
        tokenizer: Tokenizer of transformers.
        model: Model of transformers.
    """

    tokenizer: Any
    model: Any

    def to_json(self) -> dict[str, Any]:
        """Return config and tokenizer as JSON, without the weights.

        Raises:
            UserError: If the tokenizer is not one of the tokenizers library.
        """
        if not getattr(self.tokenizer, "is_fast", False):
            raise UserError(
                "`language_model` must have a fast tokenizer (tokenizer.json) to be stored, got "
                f"`{type(self.tokenizer).__name__}`: use config and checkpoint of the captioner"
            )
        config = self.model.config
        settings = {k: v for k, v in config.to_diff_dict().items() if k not in _NOT_SAVED}
        return {
            "config": {k: v for k, v in settings.items() if k[0] != "_"}
            | {"model_type": config.model_type},
            "tokenizer": self.tokenizer.backend_tokenizer.to_str(),
            "eos_token": self.tokenizer.eos_token,
            "unk_token": self.tokenizer.unk_token,
            "clean_up_tokenization_spaces": self.tokenizer.clean_up_tokenization_spaces,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LanguageModel":
        """Build the model of :meth:`to_json` with random weights; no code of others is run.

        Raises:
            KeyError: If a value is missing.
            UserError: If transformers has no such model.
        """
        from tokenizers import Tokenizer
        from transformers import (
            AutoConfig,
            AutoModelForCausalLM,
            GenerationConfig,
            PreTrainedTokenizerFast,
        )

        settings = {k: v for k, v in values["config"].items() if k not in _NOT_SAVED}
        kind = settings.pop("model_type")
        try:
            config = AutoConfig.for_model(kind, **settings)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except ValueError as error:
            raise UserError(
                f"transformers has no causal language model of the type {kind!r}: {error}"
            ) from error
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(values["tokenizer"]),
            eos_token=values["eos_token"],
            unk_token=values["unk_token"],
            clean_up_tokenization_spaces=values["clean_up_tokenization_spaces"],
        )
        model.generation_config = GenerationConfig()
        return cls(tokenizer, model.float())


def load_language_model(name: str, pretrained: bool = True) -> LanguageModel:
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
    return LanguageModel(tokenizer, model.float())
