"""A sentence that names an image's concepts, for a language model to go on from."""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.model import BaseModule
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.concept_set import load_concepts
from pcm_plugin.formats.tokenize import tokenize
from pcm_plugin.formats.word_list import read_word_list
from pcm_plugin.models.functional.concept_retrieval import prepare_concepts, retrieve_concepts

_NOTHING = "something"


class EntityPrompt(BaseModule):
    """ViECap's hard prompt (Fei et al. 2023): the words of an image's likeliest concepts.

    At inference the concepts are found as PCM finds them (paper, Eq. 1). In training they are found
    so too, from the feature that the neck gets, unless ``caption_entities`` are given: then the
    prompt names those of them that the caption has, as in ViECap.

    ViECap's entities in training are the nouns that NLTK's tagger finds in the caption, as far as
    Visual Genome has them as objects. Here they are the words of a list, singular or plural; no
    tagger decides whether a word is a noun in this caption.

    Args:
        clip_dim: Width Dc of CLIP's joint space.
        template: The sentence, with ``{}`` for the words.
        concepts: Concept file. Defaults to None: call :meth:`set_concepts`. Not part of a
            checkpoint.
        top_concepts: Most words.
        concept_threshold: Concepts not above this probability are not named.
        temperature: Of the softmax over the concepts.
        caption_entities: Words that a prompt names in training if the caption has them: a concept
            file, or a list as :func:`read_word_list` reads it. Phrases in it are not looked for, as in
            ViECap. Defaults to None.
        entity_dropout: Probability with which an entity of a caption is left out. Defaults to 0.4,
            as in ViECap's released scripts.
        entity_aliases: What some words are called in the prompt; they need not be in the list.
            Defaults to None.
        max_caption_entities: Only this many entities of a caption are considered. Defaults to 10,
            as in ViECap's released code.

    Attributes:
        concept_words (list[str]): The words of the concepts.

    Raises:
        UserError: If the template has no ``{}``, the concepts are of another width, or
            ``entity_dropout`` is not in 0..1.
        MissingFileError: If there is no such file.
    """

    def __init__(
        self,
        clip_dim: int,
        template: str,
        concepts: str | os.PathLike | None,
        top_concepts: int,
        concept_threshold: float,
        temperature: float,
        caption_entities: str | os.PathLike | None = None,
        entity_dropout: float = 0.4,
        entity_aliases: Mapping[str, str] | None = None,
        max_caption_entities: int = 10,
    ) -> None:
        super().__init__()
        if "{}" not in template:
            raise UserError(f"prompt={template!r}: put {{}} where the concepts are to stand")
        if not 0 <= entity_dropout <= 1:
            raise UserError(
                f"`entity_dropout` must be a probability, got `{entity_dropout}`: pass a number "
                "from 0 to 1"
            )
        self.clip_dim = clip_dim
        self.template = template
        self.top_concepts = top_concepts
        self.concept_threshold = concept_threshold
        self.temperature = temperature
        self.entity_dropout = entity_dropout
        self.max_caption_entities = max_caption_entities
        self._entities: dict[str, str] = {}
        if caption_entities is not None:
            words = _read_entities(Path(caption_entities))
            self._entities = {word: word for word in words} | dict(entity_aliases or {})
        self.concept_words: list[str] = []
        self.concepts: Tensor
        self.register_buffer("concepts", torch.zeros(0, clip_dim), persistent=False)
        if concepts is not None:
            self.set_concepts(*load_concepts(concepts)[:2])

    @property
    def reads_captions(self) -> bool:
        """Whether prompts name the entities of captions in training."""
        return bool(self._entities)

    def set_concepts(self, words: Sequence[str], embeddings: Tensor) -> None:
        """Give the concepts to look for; see :meth:`PatchTextMatcher.set_concepts`."""
        found = prepare_concepts(words, embeddings, self.clip_dim, self.top_concepts)
        self.concepts = found.to(self.concepts.device)
        self.concept_words = list(words)

    @torch.no_grad()
    def forward(self, global_feats: Tensor) -> list[str]:
        """Write the prompts.

        Args:
            global_feats: (B, Dc) of any floating type, CLIP's embedding of images or captions.

        Returns:
            B sentences.

        Raises:
            UserError: If there are no concepts yet.
        """
        if not len(self.concepts):
            raise UserError(
                "the prompt has no concepts to name: name a file in concepts=... "
                "(tools/build_concepts.py makes one), call set_concepts(), or set prompt=None"
            )
        ids, probs, _ = retrieve_concepts(
            global_feats.float(), self.concepts, self.top_concepts, 0.0, self.temperature
        )
        likely = (probs > self.concept_threshold).tolist()
        named = (
            [self.concept_words[i] for i, is_likely in zip(*row, strict=True) if is_likely]
            for row in zip(ids.tolist(), likely, strict=True)
        )
        return [self._fill(words) for words in named]

    def from_captions(self, captions: Sequence[str]) -> list[str]:
        """Write the prompts of a training batch, from the entities of its captions.

        Args:
            captions: B captions.

        Returns:
            B sentences; each entity of a caption is left out with the probability
            ``entity_dropout``.
        """
        prompts = []
        for caption in captions:
            found = self.find_entities(caption)
            kept = (torch.rand(len(found)) >= self.entity_dropout).tolist()
            names = [name for name, is_kept in zip(found, kept, strict=True) if is_kept]
            prompts.append(self._fill(dict.fromkeys(names)))
        return prompts

    def find_entities(self, caption: str) -> list[str]:
        """Return the entities of a caption by the names that the prompt has for them.

        Each word counts once, in the order of the caption; two words may have one name.
        """
        found: dict[str, str] = {}
        for word in tokenize(caption):
            key = word if word in self._entities else _singular(word)
            if key in self._entities:
                found[key] = self._entities[key]
        return list(found.values())[: self.max_caption_entities]

    def _fill(self, words: Iterable[str]) -> str:
        return self.template.replace("{}", ", ".join(words) or _NOTHING)


def _read_entities(path: Path) -> list[str]:
    """Return the words of a concept file or a list, without phrases."""
    words = load_concepts(path).words if path.suffix == ".safetensors" else read_word_list(path)
    return [word for word in words if " " not in word]


@functools.cache
def _singular(word: str) -> str:
    # Slow to import, and only needed in training.
    from textblob.en.inflect import singularize

    return singularize(word)
