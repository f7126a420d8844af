"""Rephrase captions with a causal language model of transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.captions.record import Caption, shorten
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.rephrasings import MAX_CHARS
from pcm_plugin.models.decoders.causal_lm import load_language_model
from pcm_plugin.models.functional.sampling import sample_top_p
from pcm_plugin.synthesis.generate.settings import DTYPES
from pcm_plugin.synthesis.generate.text2image import image_seed

PROMPT = """\
Caption: a man rides a wave on a surfboard
In other words: a surfer is riding on top of a wave

Caption: two dogs are playing with a ball in the park
In other words: in a park, a pair of dogs chases a ball

Caption: {}
In other words:"""
"""Default prompt, with two examples, which also models without instruction tuning continue."""


@dataclass(frozen=True)
class RephraseSettings:
    """Settings on which rephrased captions depend, in addition to the captions and the model.

    Attributes:
        count: Maximum number of texts per caption. Defaults to 3.
        candidates: Number of texts that are sampled per caption, of which the first ``count`` valid
            ones are kept. Defaults to None: twice ``count``.
        prompt: Text that the model continues, with one ``{}`` for the caption. Defaults to
            :data:`PROMPT`.
        temperature: Divisor of the logits. Defaults to 1.
        top_p: Each token is chosen among the most probable ones whose probabilities sum to this.
            Defaults to 0.9.
        max_tokens: Maximum number of tokens per text, including the one that ends it. Defaults
            to 40.
        seed: Seed of the run. Defaults to 0.
        dtype: One of :data:`~pcm_plugin.synthesis.generate.settings.DTYPES`. Defaults to
            ``'float32'``.

    Raises:
        UserError: If a setting is out of range.
    """

    count: int = 3
    candidates: int | None = None
    prompt: str = PROMPT
    temperature: float = 1.0
    top_p: float = 0.9
    max_tokens: int = 40
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("count", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_candidates < self.count:
            raise UserError(
                f"candidates must be at least count={self.count}, got {self.candidates}"
            )
        if self.prompt.count("{}") != 1:
            raise UserError(
                f"prompt must contain '{{}}' once, in place of the caption, got {self.prompt!r}"
            )
        # Also refuses NaN.
        if not 0 < self.temperature < float("inf"):
            raise UserError(
                f"temperature must be a finite number of more than 0, got {self.temperature}"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be more than 0 and at most 1, got {self.top_p}")
        if self.dtype not in DTYPES:
            raise UserError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    @property
    def num_candidates(self) -> int:
        """Number of texts that are sampled per caption."""
        return 2 * self.count if self.candidates is None else self.candidates


class Rephraser:
    """Language model with the settings of a run.

    A text ends with the model's end of text or before a line break.

    Args:
        model: Folder or name of a causal language model with safetensors weights.
        settings: Settings of the texts.
        device: Device of the model.

    Raises:
        MissingFileError: If the model does not exist, or a file is missing in its folder.
        UserError: If its tokenizer does not fit.
    """

    def __init__(self, model: str, settings: RephraseSettings, device: str) -> None:
        self.name, self.settings, self.device = model, settings, device
        self.tokenizer, lm = load_language_model(model)
        self.lm = lm.to(device, getattr(torch, settings.dtype)).eval()
        # Without padding at the end, all rows continue at the same position.
        self.tokenizer.padding_side = "left"
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        tokens = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
        self._stop_ids = [
            i for i, text in enumerate(tokens) if "\n" in text or i == self.tokenizer.eos_token_id
        ]

    def check(self, captions: Sequence[Caption]) -> None:
        """Check that the model has room for the prompts of captions and for their texts.

        Raises:
            UserError: If a prompt is too long.
        """
        room = getattr(self.lm.config, "max_position_embeddings", None)
        lengths = [len(ids) for ids in self.tokenizer(self._prompts(captions))["input_ids"]]
        for caption, length in zip(captions, lengths, strict=True):
            if room is not None and length + self.settings.max_tokens > room:
                raise UserError(
                    f"the prompt of caption {caption.id!r} ({shorten(caption.text)}) has {length} "
                    f"tokens, which with max_tokens={self.settings.max_tokens} are more than the "
                    f"{room} of {self.name}: pass a shorter prompt or lower max_tokens"
                )

    @torch.inference_mode()
    def rephrase(self, captions: Sequence[Caption]) -> list[list[str]]:
        """Rephrase a batch of captions.

        The random numbers of a text depend only on the seed of the run, the id of the caption and
        the number of the text.

        Args:
            captions: The captions.

        Returns:
            At most ``count`` texts of each caption. Texts that are empty, repeated, not finished
            within ``max_tokens``, or equal to the caption are dropped; case and punctuation at the
            end do not count.
        """
        from transformers import LogitsProcessorList

        settings, number = self.settings, self.settings.num_candidates
        inputs = self.tokenizer(self._prompts(captions), return_tensors="pt", padding=True)
        ids = inputs["input_ids"].to(self.device).repeat_interleave(number, 0)  # (R, L)
        mask = inputs["attention_mask"].to(self.device).repeat_interleave(number, 0)
        uniform = torch.cat([self._uniform(caption) for caption in captions])  # (R, max_tokens)
        sampler = _Sampler(uniform.to(self.device), ids.shape[1], settings)
        output = self.lm.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=settings.max_tokens,
            do_sample=False,  # the sampler has chosen
            eos_token_id=self._stop_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([sampler]),
        )
        texts = [self._decode(row) for row in output[:, ids.shape[1] :].tolist()]
        return [
            select_texts(caption.text, texts[i * number : (i + 1) * number], settings.count)
            for i, caption in enumerate(captions)
        ]

    def _prompts(self, captions: Sequence[Caption]) -> list[str]:
        return [self.settings.prompt.replace("{}", caption.text) for caption in captions]

    def _uniform(self, caption: Caption) -> Tensor:
        # The same seed as that of the first image of the caption.
        generator = torch.Generator().manual_seed(image_seed(self.settings.seed, caption.id))
        shape = self.settings.num_candidates, self.settings.max_tokens
        return torch.rand(shape, generator=generator)

    def _decode(self, row: list[int]) -> str:
        """Return the text of a row, empty if it is not finished."""
        end = next((i for i, token in enumerate(row) if token in self._stop_ids), None)
        if end is None:
            return ""
        text = self.tokenizer.decode(row[: end + 1], skip_special_tokens=True)
        return text.partition("\n")[0]


def select_texts(caption: str, texts: Sequence[str], count: int) -> list[str]:
    """Return the first usable texts of a caption.

    Args:
        caption: The caption.
        texts: Sampled texts.
        count: Maximum number of texts.

    Returns:
        Cleaned texts that are not empty, not longer than a caption may be, and differ from the
        caption and from each other in more than case and punctuation at the end.
    """
    found = {_comparable(caption): ""}
    for text in map(clean_text, texts):
        key = _comparable(text)
        if key and len(text) <= MAX_CHARS:
            found.setdefault(key, text)
    return list(found.values())[1 : count + 1]


def _comparable(text: str) -> str:
    return text.casefold().rstrip(" .!?")


class _Sampler:
    """Logits processor of transformers that leaves only the token that it has sampled."""

    def __init__(self, uniform: Tensor, start: int, settings: RephraseSettings) -> None:
        self._uniform, self._start, self._settings = uniform, start, settings

    def __call__(self, input_ids: Tensor, scores: Any) -> Tensor:
        column = self._uniform[:, input_ids.shape[1] - self._start]  # (R,)
        settings = self._settings
        tokens = sample_top_p(scores.float(), column, settings.temperature, settings.top_p)
        chosen = torch.full_like(scores, -torch.inf)
        return chosen.scatter(1, tokens.unsqueeze(1), 0.0)
