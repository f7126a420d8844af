"""Neck of the text-only baselines: tokens from the global feature alone."""

import os
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import load_pairs
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.models.functional.concept_retrieval import inject_noise
from pcm_plugin.models.functional.text_memory import project_onto_text_memory
from pcm_plugin.models.layers import Dropout
from pcm_plugin.models.necks.base import Neck
from pcm_plugin.models.necks.output import NeckOutput
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class GlobalPrefix(Neck):
    """A global CLIP feature as one token, or as several.

    Trained on text features and applied to image features, in front of PCM-Net's encoder and
    decoder, it is one of two systems that see no images in training:

    - CapDec (Nukrai et al. 2022) adds noise to the text feature (``noise_var``).
    - DeCap (Li et al. 2023) adds no noise. At inference it projects the image feature onto the
      training texts (``text_memory``).

    With ``num_tokens=10`` and ``linear=True`` it is the first layer of ViECap's mapping network
    (Fei et al. 2023); :class:`.PrefixMapper` is the rest of it.

    Args:
        clip_dim: Width Dc of CLIP's joint space.
        embed_dims: Model width D. Defaults to 512.
        noise_var: Variance of the Gaussian noise on the feature in training. Defaults to 0.016, as
            in CapDec and the released PCM-Net.
        text_memory: Feature store whose captions are the text memory. Defaults to None, no text
            memory. It is not part of a checkpoint.
        text_memory_pairs: File of pairs; only their captions are the text memory. Defaults to None:
            all captions of the store.
        text_memory_temperature: Temperature of the projection onto the text memory. Defaults to
            0.01, as in DeCap.
        text_memory_chunk: Number of texts to process at a time. Defaults to 65,536. A chunk of
            4,096 fits into the cache of a CPU, which halves the time there.
        dropout: Dropout probability of the tokens. Defaults to 0.5, as in PCMMixup.
        num_tokens: Number L of tokens. Defaults to 1.
        linear: Whether to return the projected feature itself, without ReLU, LayerNorm and dropout.
            Defaults to False.
        init_cfg: MMEngine's initialization config. Defaults to None, PyTorch's initialization.

    Attributes:
        text_memory (Tensor): (M, Dc), text embeddings with norm 1.

    Raises:
        MissingFileError: If the store is missing.
        UserError: If the store has another width or no captions, or ``num_tokens`` is below 1.
    """

    input_files = {
        "text_memory": FileKind.FEATURE_STORE,
        "text_memory_pairs": FileKind.PAIR_SELECTION,
    }

    takes_patches = False

    text_memory: Tensor

    def __init__(
        self,
        clip_dim: int,
        embed_dims: int = 512,
        noise_var: float = 0.016,
        text_memory: str | os.PathLike | None = None,
        text_memory_pairs: str | os.PathLike | None = None,
        text_memory_temperature: float = 0.01,
        text_memory_chunk: int = 65_536,
        dropout: float = 0.5,
        num_tokens: int = 1,
        linear: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_tokens < 1:
            raise UserError(f"`num_tokens` must be at least 1, got `{num_tokens}`: pass 1 or more")
        self.clip_dim = clip_dim
        self.embed_dims = embed_dims
        self.noise_var = noise_var
        self.text_memory_temperature = text_memory_temperature
        self.text_memory_chunk = text_memory_chunk
        self.register_buffer("text_memory", torch.zeros(0, clip_dim), persistent=False)
        self.num_tokens = num_tokens
        self.linear = linear
        self.global_proj = nn.Linear(clip_dim, num_tokens * embed_dims)
        if not linear:
            self.norm = nn.LayerNorm(embed_dims)
            self.dropout = Dropout(dropout)
        if text_memory is not None:
            store = FeatureStore(text_memory)
            rows = np.arange(store.num_captions)
            if text_memory_pairs is not None:
                rows = np.unique(load_pairs(store, text_memory_pairs).caption)
            self.set_text_memory(store.read_rows("caption_feats", rows, dtype=None))

    def set_text_memory(self, texts: Tensor) -> None:
        """Set the texts that image features are projected onto.

        Args:
            texts: (M, Dc) of any floating type, CLIP text embeddings with norm 1; kept in their
                type.

        Raises:
            UserError: If there are no texts, or they have another width than the neck.
        """
        if not len(texts) or texts.shape[1:] != (self.clip_dim,):
            raise UserError(
                f"`text_memory` must be (M, clip_dim={self.clip_dim}) with at least one text, got "
                f"`{tuple(texts.shape)}`: use a feature store of a CLIP of this width"
            )
        self.text_memory = texts.to(self.global_proj.weight.device)

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return concepts and text memory; see :meth:`.Neck.extra_tensors`."""
        memory = {"text_memory": self.text_memory} if len(self.text_memory) else {}
        return {**super().extra_tensors(), **memory}

    def set_extra_tensors(self, tensors: Mapping[str, Tensor], concept_words: list[str]) -> None:
        """Set concepts and text memory; see :meth:`.Neck.set_extra_tensors`."""
        super().set_extra_tensors(tensors, concept_words)
        if "text_memory" in tensors:
            self.set_text_memory(tensors["text_memory"])

    def forward(self, patch_feats: Tensor | None, global_feats: Tensor) -> NeckOutput:
        """Compute the tokens.

        Args:
            patch_feats: Not used.
            global_feats: (B, Dc), CLIP image or text embeddings.

        Returns:
            Tokens (B, L, D), and a mask that is all True.

        Raises:
            UserError: If the features have another width than the neck.
        """
        feats = self._check_feats(global_feats)  # (B, Dc)
        if not self.training and len(self.text_memory):
            # DeCap, Sec. 3.3: only images are projected. In training the features are of texts.
            feats = self._project_to_memory(feats)
        feats = inject_noise(feats, self.noise_var if self.training else 0.0)
        tokens = self.global_proj(feats)  # (B, L * D)
        tokens = tokens.unflatten(-1, (self.num_tokens, self.embed_dims))  # (B, L, D)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return NeckOutput(self._norm_act_drop(tokens), mask)

    def _check_feats(self, global_feats: Tensor) -> Tensor:
        """Return the features (B, Dc) in float32, after a check of their width."""
        if global_feats.shape[1:] != (self.clip_dim,):
            raise UserError(
                f"`global_feats` must be (B, clip_dim={self.clip_dim}), got "
                f"`{tuple(global_feats.shape)}`: set clip_dim to the width of the features"
            )
        return global_feats.float()

    def _project_to_memory(self, feats: Tensor) -> Tensor:
        """Project features (B, Dc) onto the text memory."""
        chunks = self.text_memory.split(self.text_memory_chunk)
        return project_onto_text_memory(feats, chunks, self.text_memory_temperature)

    def _norm_act_drop(self, tokens: Tensor) -> Tensor:
        """Apply ReLU, LayerNorm and dropout to tokens (B, L, D), unless ``linear``."""
        return tokens if self.linear else self.dropout(self.norm(F.relu(tokens)))
