"""SynTIC's prefix, a reconstruction: an image in the words of a memory, and its objects."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.concept_set import load_concepts
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.models.functional.concept_retrieval import (
    concept_probabilities,
    prepare_concepts,
    retrieve_concepts,
)
from pcm_plugin.models.necks.global_prefix import GlobalPrefix
from pcm_plugin.models.necks.output import NeckOutput
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class ObjectPrefix(GlobalPrefix):
    """A global CLIP feature put together from texts, and a token for each object of the image.

    SynTIC (AAAI 2024, arXiv 2312.08865) represents an image by a similarity-weighted sum of text
    features, in training a synthetic image, at inference a real one, and helps the decoder by the
    objects in it. No code is public, and no source names the size or the temperature of the
    memory, or the detector. Of this reconstruction the following is ours:

    - The feature is projected in training as at inference, since both are images: the decoder
      then sees texts alone, in one form.
    - The objects are the concepts nearest to the image's own feature, not to its projection, which
      would say again what the first token says. This needs no detector; a detector's labels can be
      given instead.
    - An object is a Linear of its concept's text embedding: CLIP's width must become the decoder's,
      so that the two Linears and their norm are trained with it.
    - There is no noise on the feature: refinement and projection are to close the gap.

    Args:
        clip_dim: Width Dc of CLIP's joint space.
        embed_dims: Model width D. Defaults to 512.
        concepts: Concept file, as ``tools/build_concepts.py`` writes it. Defaults to None: call
            :meth:`set_concepts`. Not part of a checkpoint.
        top_concepts: K, concepts that count as an image's objects. Defaults to 5, as PCM-Net's.
        memory: Feature store whose captions are the memory. Defaults to None: call
            :meth:`set_memory`. Not part of a checkpoint.
        memory_temperature: Of the softmax over the memory, and of that over the concepts, on which
            no token depends. Defaults to 0.01, DeCap's.
        memory_chunk: Texts of the memory at a time. Defaults to 65,536; some 4,096 stay in a CPU's
            cache, which takes half the time there.
        dropout: Of the tokens. Defaults to 0.5, as PCMMixup's.
        init_cfg: MMEngine's initialisation config. Defaults to None: PyTorch's own.

    Attributes:
        concept_words (list[str]): The words of the concepts.

    Raises:
        MissingFileError: If there is no such file or store.
        UserError: If one of them is of another width, or holds too little.
    """

    input_files = {"memory": FileKind.FEATURE_STORE, "concepts": FileKind.CONCEPT_SET}

    def __init__(
        self,
        clip_dim: int,
        embed_dims: int = 512,
        concepts: str | os.PathLike | None = None,
        top_concepts: int = 5,
        memory: str | os.PathLike | None = None,
        memory_temperature: float = 0.01,
        memory_chunk: int = 65_536,
        dropout: float = 0.5,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            clip_dim,
            embed_dims,
            0.0,
            memory,
            memory_temperature,
            memory_chunk,
            dropout,
            init_cfg=init_cfg,
        )
        self.top_concepts = top_concepts
        self.object_proj = nn.Linear(clip_dim, embed_dims)
        self.concept_words: list[str] = []
        self.concepts: Tensor
        self.register_buffer("concepts", torch.zeros(0, clip_dim), persistent=False)
        if concepts is not None:
            self.set_concepts(*load_concepts(concepts)[:2])

    def set_concepts(self, words: Sequence[str], embeddings: Tensor) -> None:
        """Give the concepts that objects are.

        Args:
            words: C words.
            embeddings: (C, Dc), their CLIP text embeddings, of any length but 0; normalised into a
                copy.

        Raises:
            UserError: If the sizes do not agree with each other or with the neck.
        """
        directions = prepare_concepts(words, embeddings, self.clip_dim, self.top_concepts)
        self.concept_words = list(words)
        self.concepts = directions.to(self.concepts.device)

    def forward(
        self, patch_feats: Tensor | None, global_feats: Tensor, objects: Tensor | None = None
    ) -> NeckOutput:
        """Make the tokens.

        Args:
            patch_feats: Not used; here so that necks can be exchanged.
            global_feats: (B, Dc), CLIP's embedding of an image, of any length but 0.
            objects: (B, K') int64, the objects of each image by their numbers in
                ``concept_words``, -1 after the last. Defaults to None: its K nearest concepts.

        Returns:
            1 + K tokens, or 1 + K', of which those of no object are not valid.

        Raises:
            UserError: If there is no memory, there are no concepts yet, or the features have
                another width than the neck.
        """
        feats = self.check(global_feats)
        if not len(self.memory):
            raise UserError(
                "ObjectPrefix has no memory: name a feature store in memory=... (that of the "
                "training captions) or call set_memory()"
            )
        if not len(self.concepts):
            raise UserError(
                "ObjectPrefix has no concepts: name a file in concepts=... "
                "(tools/build_concepts.py makes one) or call set_concepts()"
            )
        ids, probs = self._objects(feats, objects)
        valid = torch.cat([ids.new_ones(len(ids), 1, dtype=torch.bool), ids >= 0], dim=1)
        first = self.global_proj(self.project(feats)).unsqueeze(1)
        others = self.object_proj(self.concepts[ids.clamp(min=0)])
        return NeckOutput(self.finish(torch.cat([first, others], dim=1)), valid, ids, probs)

    def _objects(self, feats: Tensor, objects: Tensor | None) -> tuple[Tensor, Tensor]:
        """Objects (B, K') and their probabilities among all concepts, 0 where there is none."""
        if objects is None:
            ids, probs, _ = retrieve_concepts(
                feats, self.concepts, self.top_concepts, 0.0, self.memory_temperature
            )
            return ids, probs
        probs = concept_probabilities(feats, self.concepts, self.memory_temperature)
        return objects, probs.gather(1, objects.clamp(min=0)) * (objects >= 0)
