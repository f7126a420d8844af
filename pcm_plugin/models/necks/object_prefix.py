"""Neck of SynTIC, a reconstruction: an image as a projection onto texts, and its objects."""

import os

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.models.necks.concept_bank import ConceptBank
from pcm_plugin.models.necks.global_prefix import GlobalPrefix
from pcm_plugin.models.necks.output import NeckOutput
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class ObjectPrefix(GlobalPrefix):
    """A global CLIP feature projected onto texts, and one token per object of the image.

    SynTIC (AAAI 2024, arXiv 2312.08865) represents an image by a similarity-weighted sum of text
    features, of a synthetic image in training and of a real image at inference, and supports the
    decoder with the objects in the image. There is no public code, and no source states the size
    and the temperature of the memory, or the detector. The following choices are ours:

    - The feature is projected in training as well as at inference, since both are images. The
      decoder then only sees features of texts.
    - The objects are the concepts nearest to the image's own feature. Those nearest to its
      projection would repeat the first token. This needs no detector; labels of a detector can be
      passed instead.
    - The token of an object is a linear map of its concept's text embedding, since the width of
      CLIP must become that of the decoder. The two linear maps and their norm are trained with it.
    - There is no noise on the feature, since refinement and projection are to close the modality
      gap.

    Args:
        clip_dim: Width Dc of CLIP's joint space.
        embed_dims: Model width D. Defaults to 512.
        concepts: Concept file, as ``pcm build-concepts`` writes it. Defaults to None, which
            requires a call of :meth:`.Neck.set_concepts`. It is not part of a checkpoint.
        top_concepts: Number K of concepts that count as objects of an image. Defaults to 5, as in
            PCM-Net.
        text_memory: Feature store whose captions are the text memory. Defaults to None, which
            requires a call of :meth:`.GlobalPrefix.set_text_memory`. It is not part of a
            checkpoint.
        text_memory_pairs: File of pairs; only their captions are the text memory. Defaults to None:
            all captions of the store.
        text_memory_temperature: Temperature of the softmax over the text memory, and of that over
            the concepts, on which no token depends. Defaults to 0.01, as in DeCap.
        text_memory_chunk: Number of texts to process at a time. Defaults to 65,536. A chunk of
            4,096 fits into the cache of a CPU, which halves the time there.
        dropout: Dropout probability of the tokens. Defaults to 0.5, as in PCMMixup.
        init_cfg: MMEngine's initialization config. Defaults to None, PyTorch's initialization.

    Attributes:
        concepts (ConceptBank): The concepts.

    Raises:
        MissingFileError: If a file or store is missing.
        UserError: If one of them has another width or too few entries.
    """

    input_files = {**GlobalPrefix.input_files, "concepts": FileKind.CONCEPT_SET}

    def __init__(
        self,
        clip_dim: int,
        embed_dims: int = 512,
        concepts: str | os.PathLike | None = None,
        top_concepts: int = 5,
        text_memory: str | os.PathLike | None = None,
        text_memory_pairs: str | os.PathLike | None = None,
        text_memory_temperature: float = 0.01,
        text_memory_chunk: int = 65_536,
        dropout: float = 0.5,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(
            clip_dim,
            embed_dims,
            noise_var=0.0,
            text_memory=text_memory,
            text_memory_pairs=text_memory_pairs,
            text_memory_temperature=text_memory_temperature,
            text_memory_chunk=text_memory_chunk,
            dropout=dropout,
            init_cfg=init_cfg,
        )
        self.object_proj = nn.Linear(clip_dim, embed_dims)
        self.concepts = ConceptBank(clip_dim, top_concepts, concepts)

    @property
    def concept_bank(self) -> ConceptBank:
        """The concepts that objects are taken from."""
        return self.concepts

    def forward(
        self, patch_feats: Tensor | None, global_feats: Tensor, objects: Tensor | None = None
    ) -> NeckOutput:
        """Compute the tokens.

        Args:
            patch_feats: Not used.
            global_feats: (B, Dc), CLIP image embeddings with any norm except 0.
            objects: (B, K') int64, the objects of each image as indices into ``concept_words``,
                padded with -1. Defaults to None, the K nearest concepts.

        Returns:
            1 + K tokens, or 1 + K' with ``objects``, where padding is masked.

        Raises:
            UserError: If text memory or concepts are missing, or the features have another width
                than the neck.
        """
        feats = self._check_feats(global_feats)  # (B, Dc)
        if not len(self.text_memory):
            raise UserError(
                "ObjectPrefix has no text memory: set `text_memory` to the feature store of the "
                "training captions, or call set_text_memory()"
            )
        self.concepts.check_not_empty("ObjectPrefix")
        ids, probs = self._objects(feats, objects)  # (B, K), (B, K)
        first = self.global_proj(self._project_to_memory(feats)).unsqueeze(1)  # (B, 1, D)
        others = self.object_proj(self.concepts.embeddings[ids.clamp(min=0)])  # (B, K, D)
        tokens = self._norm_act_drop(torch.cat([first, others], dim=1))  # (B, 1 + K, D)
        is_first = ids.new_ones(len(ids), 1, dtype=torch.bool)  # (B, 1)
        mask = torch.cat([is_first, ids >= 0], dim=1)  # (B, 1 + K)
        return NeckOutput(tokens, mask, ids, probs)

    def _objects(self, feats: Tensor, objects: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return objects (B, K') and their probabilities among all concepts, 0 for padding."""
        temperature = self.text_memory_temperature
        if objects is None:
            ids, probs, _ = self.concepts.retrieve(feats, 0.0, temperature)
            return ids, probs
        probs = self.concepts.probabilities(feats, temperature)  # (B, C)
        return objects, probs.gather(1, objects.clamp(min=0)) * (objects >= 0)  # (B, K') each
