"""Concepts that an image may show, with their CLIP text embeddings."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.concept_set import load_concepts
from pcm_plugin.models.functional.concept_retrieval import (
    concept_probabilities,
    prepare_concepts,
    retrieve_concepts,
)


class ConceptBank(nn.Module):
    """Words of C concepts and their CLIP text embeddings, from which images retrieve K each.

    Concepts are not part of a checkpoint, since another domain may need others.

    Args:
        clip_dim: Width Dc of CLIP's joint space.
        top_concepts: Number K of concepts to retrieve per image.
        path: Concept file, as ``pcm build-concepts`` writes it. Defaults to None, which
            requires a call of :meth:`set_concepts` before the first image.

    Attributes:
        words (list[str]): The words of the concepts.
        ids (dict[str, int]): Index of each word.
        embeddings (Tensor): (C, Dc) float32, their text embeddings, each of norm 1.

    Raises:
        MissingFileError: If the concept file is missing.
        UserError: If its embeddings have another width than ``clip_dim``, or it has fewer than K
            concepts.
    """

    embeddings: Tensor

    def __init__(
        self, clip_dim: int, top_concepts: int, path: str | os.PathLike | None = None
    ) -> None:
        super().__init__()
        self.clip_dim = clip_dim
        self.top_concepts = top_concepts
        self.words: list[str] = []
        self.ids: dict[str, int] = {}
        self.register_buffer("embeddings", torch.zeros(0, clip_dim), persistent=False)
        if path is not None:
            concepts = load_concepts(path)
            self.set_concepts(concepts.words, concepts.embeddings)

    def set_concepts(self, words: Sequence[str], embeddings: Tensor) -> None:
        """Set the concepts.

        Args:
            words: C words.
            embeddings: (C, Dc), their CLIP text embeddings with any norm except 0; copied and
                normalized.

        Raises:
            UserError: If the sizes do not match each other, ``clip_dim`` or ``top_concepts``.
        """
        prepared = prepare_concepts(words, embeddings, self.clip_dim, self.top_concepts)
        self.embeddings = prepared.to(self.embeddings.device)
        self.words = list(words)
        self.ids = {word: i for i, word in enumerate(self.words)}

    def check_not_empty(self, owner: str) -> None:
        """Check that concepts are set.

        Args:
            owner: Name of the module that needs them, for the message.

        Raises:
            UserError: If there are none.
        """
        if not len(self.embeddings):
            raise UserError(
                f"{owner} has no concepts: set `concepts` to a file of `pcm build-concepts`, or "
                "call set_concepts()"
            )

    def retrieve(
        self, global_feats: Tensor, threshold: float, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Retrieve the K most probable concepts of images; see :func:`.retrieve_concepts`.

        Args:
            global_feats: (B, Dc), CLIP image embeddings with any norm except 0.
            threshold: Concepts whose probability does not exceed this are masked.
            temperature: Temperature of the softmax over the C concepts.

        Returns:
            Indices (B, K) int64 by falling probability, probabilities (B, K), and embeddings
            (B, K, Dc), which are 0 where masked.
        """
        return retrieve_concepts(
            global_feats, self.embeddings, self.top_concepts, threshold, temperature
        )

    def draw_others(self, ids: Tensor) -> Tensor:
        """Draw other concepts at random, each at most once per image.

        Args:
            ids: (B, K) int64, the concepts of each image.

        Returns:
            (B, K, Dc), embeddings of K concepts that are not among those of the image.

        Raises:
            UserError: If there are fewer than 2 K concepts.
        """
        if len(self.embeddings) < 2 * ids.shape[1]:
            raise UserError(
                f"`control='random_concepts'` needs {2 * ids.shape[1]} concepts, got "
                f"{len(self.embeddings)}: reduce `top_concepts` or add concepts"
            )
        noise = torch.rand(len(ids), len(self.embeddings), device=ids.device)
        drawn = noise.scatter_(1, ids, -1.0).topk(ids.shape[1], dim=1).indices  # (B, K)
        return self.embeddings[drawn]

    def probabilities(self, global_feats: Tensor, temperature: float) -> Tensor:
        """Return the probabilities (B, C) of all concepts for images (B, Dc)."""
        return concept_probabilities(global_feats, self.embeddings, temperature)
