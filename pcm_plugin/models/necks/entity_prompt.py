"""Text prompt that names the concepts of an image, for a language model to continue."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.model import BaseModule
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.concept_set import load_concepts
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.formats.tokenize import singular, tokenize
from pcm_plugin.formats.word_list import read_word_list
from pcm_plugin.models.necks.concept_bank import ConceptBank
from pcm_plugin.registry import MODELS

_NO_ENTITY = "something"


@MODELS.register_module()
class EntityPrompt(BaseModule, ReadsFiles):
    """Hard prompt of ViECap (Fei et al. 2023): names the most probable concepts of an image.

    At inference the concepts are retrieved as in PCM (paper, Eq. 1). In training they are retrieved
    in the same way from the feature that the neck gets, unless ``caption_entities`` are set: then
    the prompt names those of them that occur in the caption, as in ViECap.

    ViECap's entities in training are the nouns that NLTK's tagger finds in the caption, restricted
    to the objects of Visual Genome. Here they are the words of a list, singular or plural; no
    tagger decides whether a word is a noun in this caption.

    Args:
        clip_dim: Width Dc of CLIP's joint space.
        template: Text of the prompt, with ``{}`` for the concepts. Defaults to ViECap's.
        concepts: Concept file. Defaults to None, which requires a call of
            ``concepts.set_concepts()`` before the first image. It is not part of a checkpoint,
            since another domain may need other concepts.
        top_concepts: Maximum number of concepts in a prompt. Defaults to 3, as in ViECap's released
            code.
        concept_threshold: Concepts whose probability does not exceed this are not named. Defaults
            to 0.2, as there.
        temperature: Temperature of the softmax over the concepts. Defaults to 0.01, as there.
        caption_entities: Words that a prompt names in training if the caption contains them: a
            concept file, or a list as :func:`.read_word_list` reads it. Phrases in it are not
            searched for, as in ViECap. Defaults to None.
        entity_dropout: Probability with which an entity of a caption is left out. Defaults to 0.4,
            as in ViECap's released scripts.
        entity_aliases: Names that the prompt uses for some words, e.g. ``person`` for ``man``. The
            words need not be in the list. Defaults to None.
        max_caption_entities: Maximum number of entities of a caption. Defaults to 10, as in
            ViECap's released code.

    Attributes:
        concepts (ConceptBank): The concepts.

    Raises:
        UserError: If the template has no ``{}``, the concepts have another width, or
            ``entity_dropout`` is not in 0..1.
        MissingFileError: If a file is missing.
    """

    input_files = {"concepts": FileKind.ENTITY_SET, "caption_entities": FileKind.WORD_LIST}

    def __init__(
        self,
        clip_dim: int,
        template: str = "There are {} in image.",
        concepts: str | os.PathLike | None = None,
        top_concepts: int = 3,
        concept_threshold: float = 0.2,
        temperature: float = 0.01,
        caption_entities: str | os.PathLike | None = None,
        entity_dropout: float = 0.4,
        entity_aliases: Mapping[str, str] | None = None,
        max_caption_entities: int = 10,
    ) -> None:
        super().__init__()
        if "{}" not in template:
            raise UserError(
                f"`template` must contain {{}} in place of the concepts, got `{template!r}`"
            )
        if not 0 <= entity_dropout <= 1:
            raise UserError(
                f"`entity_dropout` must be a probability, got `{entity_dropout}`: pass a number "
                "from 0 to 1"
            )
        if entity_aliases and caption_entities is None:
            raise UserError(
                "`entity_aliases` must be None without `caption_entities`, got aliases: set "
                "caption_entities too"
            )
        self.template = template
        self.concept_threshold = concept_threshold
        self.temperature = temperature
        self.entity_dropout = entity_dropout
        self.max_caption_entities = max_caption_entities
        self._entities: dict[str, str] = {}
        if caption_entities is not None:
            words = _read_entities(Path(caption_entities))
            self._entities = {word: word for word in words} | dict(entity_aliases or {})
        self.concepts = ConceptBank(clip_dim, top_concepts, concepts)

    @property
    def reads_captions(self) -> bool:
        """Whether prompts name the entities of captions in training."""
        return bool(self._entities)

    @torch.no_grad()
    def forward(self, global_feats: Tensor) -> list[str]:
        """Build prompts from features.

        Args:
            global_feats: (B, Dc) of any floating type, CLIP embeddings of images or captions.

        Returns:
            B prompts.

        Raises:
            UserError: If there are no concepts.
        """
        self.concepts.check_not_empty("the entity prompt")
        ids, probs, _ = self.concepts.retrieve(global_feats.float(), 0.0, self.temperature)
        is_named = (probs > self.concept_threshold).tolist()  # (B, K)
        rows = zip(ids.tolist(), is_named, strict=True)
        return [
            self._fill(self.concepts.words[i] for i, named in zip(*row, strict=True) if named)
            for row in rows
        ]

    def from_captions(self, captions: Sequence[str]) -> list[str]:
        """Build prompts of a training batch from the entities of its captions.

        Args:
            captions: B captions.

        Returns:
            B prompts. Each entity of a caption is left out with the probability
            ``entity_dropout``.
        """
        prompts = []
        for caption in captions:
            entities = self.find_entities(caption)
            is_kept = (torch.rand(len(entities)) >= self.entity_dropout).tolist()
            names = [name for name, keep in zip(entities, is_kept, strict=True) if keep]
            prompts.append(self._fill(dict.fromkeys(names)))
        return prompts

    def find_entities(self, caption: str) -> list[str]:
        """Return the entities of a caption, by their names in the prompt.

        Each word counts once, in the order of the caption. Two words may have the same name.
        """
        names: dict[str, str] = {}
        for word in tokenize(caption):
            key = word if word in self._entities else singular(word)
            if key in self._entities:
                names[key] = self._entities[key]
        return list(names.values())[: self.max_caption_entities]

    def _fill(self, words: Iterable[str]) -> str:
        return self.template.replace("{}", ", ".join(words) or _NO_ENTITY)


def _read_entities(path: Path) -> list[str]:
    """Return the words of a concept file or a list, without phrases."""
    words = load_concepts(path).words if path.suffix == ".safetensors" else read_word_list(path)
    return [word for word in words if " " not in word]
