"""A sentence that names an image's concepts, for a language model to go on from."""

import os
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor

from pcm_plugin.models.functional.concepts import concept_directions, retrieve_concepts
from pcm_plugin.synthesis.concepts import load_concepts

_NOTHING = "something"


class EntityPrompt(BaseModule):
    """ViECap's hard prompt (Fei et al. 2023): the words of an image's likeliest concepts.

    The concepts are found as PCM finds them (paper, Eq. 1), in training too, from the feature that
    the neck gets. ViECap itself takes the nouns of the caption there, and drops some.

    Args:
        clip_dim: Width Dc of CLIP's joint space.
        template: The sentence, with ``{}`` for the words.
        concepts: Concept file. Defaults to None: call :meth:`set_concepts`. Not part of a
            checkpoint.
        top_concepts: Most words.
        concept_threshold: Concepts not above this probability are not named.
        temperature: Of the softmax over the concepts.

    Attributes:
        concept_words (list[str]): The words of the concepts.

    Raises:
        ValueError: If the template has no ``{}``, or the concepts are of another width.
        FileNotFoundError: If there is no such file.
    """

    def __init__(
        self,
        clip_dim: int,
        template: str,
        concepts: str | os.PathLike | None,
        top_concepts: int,
        concept_threshold: float,
        temperature: float,
    ) -> None:
        super().__init__()
        if "{}" not in template:
            raise ValueError(f"prompt={template!r}: put {{}} where the concepts are to stand")
        self.clip_dim = clip_dim
        self.template = template
        self.top_concepts = top_concepts
        self.concept_threshold = concept_threshold
        self.temperature = temperature
        self.concept_words: list[str] = []
        self.concepts: Tensor
        self.register_buffer("concepts", torch.zeros(0, clip_dim), persistent=False)
        if concepts is not None:
            self.set_concepts(*load_concepts(concepts)[:2])

    def set_concepts(self, words: Sequence[str], embeddings: Tensor) -> None:
        """Give the concepts to look for; see :meth:`PatchTexts.set_concepts`."""
        found = concept_directions(words, embeddings, self.clip_dim, self.top_concepts)
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
            RuntimeError: If there are no concepts yet.
        """
        if not len(self.concepts):
            raise RuntimeError(
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
        return [self.template.replace("{}", ", ".join(words) or _NOTHING) for words in named]
