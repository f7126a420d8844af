"""Captions of the image-to-text models of transformers, such as BLIP, GIT, SmolVLM and PaliGemma.

The config of a model decides how it is used:

- BLIP and GIT need no prompt. A prompt is the beginning of the caption.
- A ``VisionEncoderDecoderModel``, such as ViT-GPT2, takes no prompt.
- BLIP-2 and Pix2Struct need no prompt, and take one.
- All others need a prompt. A model with a chat template gets it as the message of a user.

The caption is the text that the model adds to the prompt.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError

from pcm_plugin.errors import MissingFileError, UserError

PREFIX_TYPES = ("blip", "git")
"""Model types whose prompt is the beginning of the caption."""
NO_PROMPT_TYPES = ("vision-encoder-decoder",)
"""Model types that take no prompt."""
OPTIONAL_PROMPT_TYPES = (*PREFIX_TYPES, "blip-2", "pix2struct")
"""Model types that caption images with and without a prompt."""
EXAMPLE_PROMPTS = {"florence2": "<CAPTION>", "paligemma": "caption en"}
"""Prompts for captions with which models were trained, by model type."""
EXAMPLE_PROMPT = "Describe the image in one short sentence."
"""Prompt for captions for other models that need one."""

# The processors of these need no image token in the prompt, nor do all of them add one.
_WITHOUT_IMAGE_TOKEN = ("blip-2", "instructblip")
# Processors for chats take a list of images per text, except these in older versions.
_ONE_IMAGE_PER_TEXT = ("llava", "vipllava")
_SAFE = {"trust_remote_code": False}


class ImageToTextModel:
    """An image-to-text model of transformers.

    The constructor reads config and processor and tries the prompt on an image; :meth:`load` reads
    the weights. No code from the folder is run, and only safetensors weights are read.

    Args:
        name: Folder, or name on the Hugging Face Hub.
        prompt: Prompt. Defaults to None.

    Raises:
        MissingFileError: If there is no such model, or a file is missing in its folder.
        UserError: If it is not an image-to-text model that the installed transformers supports, its
            processor cannot be loaded, or it does not accept the prompt or needs one.

    Example:
        >>> from pcm_plugin.apis import ImageToTextModel
        >>> model = ImageToTextModel("Salesforce/blip-image-captioning-base")
        >>> model.load(device="cuda:0")
        >>> model.caption([image])
        ['two cats on a couch']
    """

    def __init__(self, name: str, prompt: str | None = None) -> None:
        self.name, self.prompt = name, prompt
        self.config = _read_config(name)
        self.model_type: str = self.config.model_type
        self._check_prompt()
        self.image_processor, self.tokenizer, self.processor = _read_processor(name, self.config)
        self._has_template = bool(getattr(self.processor, "chat_template", None))
        self._model: Any = None
        self._try_prompt()

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Load the weights.

        Args:
            device: Device. Defaults to ``'cpu'``.
            dtype: ``'float32'``, ``'float16'`` or ``'bfloat16'``. Defaults to ``'float32'``.

        Raises:
            UserError: If the weights cannot be read, or lack parameters of the model.
        """
        precision = {_dtype_argument(): getattr(torch, dtype)}
        try:
            with _quiet():
                model, info = _auto_model().from_pretrained(
                    self.name,
                    use_safetensors=True,
                    output_loading_info=True,
                    **precision,
                    **_SAFE,
                )
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(f"the weights of {self.name} cannot be read: {_line(error)}") from error
        # transformers builds poolers that no captioner uses.
        missing = sorted(key for key in info["missing_keys"] if "pooler." not in key)
        if missing:
            raise UserError(
                f"the weights of {self.name} lack {missing[0]} and {len(missing) - 1} more: they "
                f"are not those of the {type(model).__name__} of transformers"
            )
        self._model = model.eval().to(device)

    def unload(self) -> None:
        """Release the memory of the weights."""
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def caption(
        self,
        images: Sequence[Image.Image],
        num_beams: int | None = None,
        max_new_tokens: int = 50,
    ) -> list[str]:
        """Caption images.

        Args:
            images: B RGB images.
            num_beams: Number of beams. Defaults to None, the setting of the model.
            max_new_tokens: Maximum number of tokens of a caption. Defaults to 50.

        Returns:
            B captions, without prompt and special tokens, in one line each.

        Raises:
            RuntimeError: If the weights are not loaded.
        """
        if self._model is None:
            raise RuntimeError(f"the weights of {self.name} are not loaded: call `load()` first")
        inputs = self._encode(images)
        mask = inputs.get("attention_mask")
        if len(images) > 1 and mask is not None and not mask.all():
            # The number of tokens of an image depends on its shape. With padding, some versions of
            # transformers shift the positions of the generated tokens.
            return [self.caption([image], num_beams, max_new_tokens)[0] for image in images]
        inputs = inputs.to(self._model.device, self._model.dtype)
        beams = {} if num_beams is None else {"num_beams": num_beams}
        with _quiet():  # about settings for sampling that generation configs contain
            tokens = self._model.generate(
                **inputs, **beams, do_sample=False, max_new_tokens=max_new_tokens
            )
        prompts = inputs.get("input_ids")
        if prompts is not None and self.model_type == "blip":
            prompts = prompts[:, :-1]  # `generate` drops the end token
        rows = list(tokens) if prompts is None else _without_prompts(tokens, prompts)
        texts = [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        return [" ".join(text.split()) for text in texts]

    def _encode(self, images: Sequence[Image.Image]) -> Any:
        """Return the inputs of ``generate`` as a BatchFeature."""
        if self.model_type in (*PREFIX_TYPES, *NO_PROMPT_TYPES):
            inputs = self.image_processor(list(images), return_tensors="pt")
            if self.model_type in PREFIX_TYPES:
                inputs["input_ids"] = torch.tensor([self._prefix_ids()] * len(images))
            return inputs
        common = {"return_tensors": "pt", "padding": True}
        if self._has_template and self.prompt is not None:
            content = [{"type": "image"}, {"type": "text", "text": self.prompt}]
            message = {"role": "user", "content": content}
            text = self.processor.apply_chat_template(
                [message], tokenize=False, add_generation_prompt=True
            )
            flat = self.model_type in _ONE_IMAGE_PER_TEXT
            items = list(images) if flat else [[image] for image in images]
            return self.processor(images=items, text=[text] * len(images), **common)
        if self.prompt is None:
            return self.processor(images=list(images), return_tensors="pt")
        return self.processor(images=list(images), text=[self.prompt] * len(images), **common)

    def _prefix_ids(self) -> list[int]:
        """Return the first tokens of a caption; for BLIP with an end token, which it drops."""
        settings = self.config.text_config if self.model_type == "blip" else self.config
        text = self.prompt or ""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        end = [settings.sep_token_id] if self.model_type == "blip" else []
        return [settings.bos_token_id, *ids, *end]

    def _check_prompt(self) -> None:
        if self.prompt is not None and not self.prompt.strip():
            raise UserError(f"the prompt of {self.name} must not be empty")
        if self.prompt is not None and self.model_type in NO_PROMPT_TYPES:
            raise UserError(
                f"{self.name} ({self.model_type}) takes no prompt, got {self.prompt!r}: leave "
                "it out"
            )
        if self.prompt is None and self.model_type not in (
            *NO_PROMPT_TYPES,
            *OPTIONAL_PROMPT_TYPES,
        ):
            example = EXAMPLE_PROMPTS.get(self.model_type, EXAMPLE_PROMPT)
            raise UserError(
                f"{self.name} ({self.model_type}) needs a prompt, such as {example!r}: pass "
                f"--prompt {self.name} {example!r}"
            )

    def _try_prompt(self) -> None:
        """Encode an image with the prompt.

        Raises:
            UserError: If this fails, or the result has no place for the image.
        """
        try:
            with _quiet():
                inputs = self._encode([Image.new("RGB", (64, 64), "gray")])
        except Exception as error:  # processors raise many types for texts they do not accept
            raise UserError(
                f"the processor of {self.name} does not accept an image with the prompt "
                f"{self.prompt!r}: {_line(error)}"
            ) from error
        ids = [getattr(self.config, key, None) for key in ("image_token_id", "image_token_index")]
        image_id = next((i for i in ids if i is not None), None)
        if self.prompt is None or image_id is None or self.model_type in _WITHOUT_IMAGE_TOKEN:
            return
        if "input_ids" in inputs and not (inputs["input_ids"] == image_id).any():
            token = self.tokenizer.convert_ids_to_tokens(image_id)
            raise UserError(
                f"the prompt of {self.name} must contain {token!r} where the image belongs, since "
                f"the model has no chat template, got {self.prompt!r}"
            )


def _read_config(name: str) -> Any:
    """Return the config of an image-to-text model."""
    from transformers import AutoConfig
    from transformers import __version__ as version

    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise MissingFileError(f"{name} is not the folder of a model: it has no config.json")
        if not any(folder.glob("*.safetensors")):
            raise MissingFileError(f"{name} has no weights (.safetensors)")
    elif len(folder.parts) > 2 or name.startswith((".", "/", "~")):
        raise MissingFileError(
            f"no folder {name}: a model must be a local folder, or a name on the hub as OWNER/NAME"
        )
    try:
        config = AutoConfig.from_pretrained(name, **_SAFE)
    except Exception as error:  # of the hub's client, of damaged files, of unknown types
        reason = _line(error)
        if "trust_remote_code" in str(error):
            reason = f"transformers {version} needs code from its folder, which is not executed"
        kind = UserError if folder.is_dir() else MissingFileError
        raise kind(
            f"{name} is not a model that transformers {version} can load: {reason}"
        ) from error
    if type(config) not in _auto_model()._model_mapping:
        raise UserError(
            f"{name} is not an image-to-text model: transformers {version} has none of the type "
            f"{config.model_type!r}"
        )
    return config


def _read_processor(name: str, config: Any) -> tuple[Any, Any, Any]:
    """Return image processor, tokenizer and processor; the last is None if there is no class."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    try:
        with _quiet():
            if config.model_type in NO_PROMPT_TYPES:
                images: Any = AutoImageProcessor.from_pretrained(name, **_SAFE)
                return images, AutoTokenizer.from_pretrained(name, **_SAFE), None
            processor: Any = AutoProcessor.from_pretrained(name, **_SAFE)
            return processor.image_processor, processor.tokenizer, processor
    except Exception as error:  # processors raise many types, also for packages that they need
        raise UserError(f"the processor of {name} cannot be loaded: {_line(error)}") from error


def _without_prompts(tokens: torch.Tensor, prompts: torch.Tensor) -> list[torch.Tensor]:
    """Remove the prompt from each row that begins with it.

    Args:
        tokens: (B, T), generated tokens. A decoder-only model repeats the prompt, unless it gets it
            as embeddings; the decoder of an encoder-decoder does not.
        prompts: (B, P), tokens of the prompts.
    """
    size = prompts.shape[1]
    return [
        row[size:] if torch.equal(row[:size], prompt) else row
        for row, prompt in zip(tokens, prompts, strict=True)
    ]


def _auto_model() -> Any:
    """Return the auto class of image-to-text models, whose name depends on the version."""
    import transformers

    # transformers 4.45 has only the second, transformers 5 only the first.
    if hasattr(transformers, "AutoModelForImageTextToText"):
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForVision2Seq


def _dtype_argument() -> str:
    """Return the name of the argument for the precision, which depends on the version."""
    import transformers
    from packaging.version import Version

    return "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"


class _quiet:
    """Context without warnings of transformers."""

    def __enter__(self) -> None:
        from transformers import logging

        self._verbosity = logging.get_verbosity()
        logging.set_verbosity_error()

    def __exit__(self, *error: object) -> None:
        from transformers import logging

        logging.set_verbosity(self._verbosity)


def _line(error: BaseException) -> str:
    """Return type and first line of the message of an exception."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
