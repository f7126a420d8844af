"""The neck of the text-only relatives: tokens from the global feature alone."""

import os

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.required_file import FileKind, ReadsFiles
from pcm_plugin.models.functional.concept_retrieval import inject_noise
from pcm_plugin.models.functional.text_memory import project_onto_text_memory
from pcm_plugin.models.layers import Dropout
from pcm_plugin.models.necks.output import NeckOutput
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class GlobalPrefix(BaseModule, ReadsFiles):
    """A global CLIP feature as the only token, or as several.

    Trained on text features and run on image features, with our captioner behind it, this is one
    of two systems that see no image in training:

    - CapDec (Nukrai et al. 2022): noise on the text feature (``noise_var``);
    - DeCap (Li et al. 2023): no noise, and at inference the image's feature is put together from
      the texts of the training that are like it (``memory``).

    With ``num_tokens=10`` and ``linear=True`` it is the first layer of ViECap's mapping network
    (Fei et al. 2023); :class:`PrefixMapper` is the rest.

    Args:
        clip_dim: Width Dc of CLIP's joint space.
        embed_dims: Model width D. Defaults to 512.
        noise_var: Variance of the Gaussian noise on the feature in training. Defaults to 0.016,
            CapDec's and the released PCM-Net's.
        memory: Feature store whose captions are the memory. Defaults to None: none. Not part of a
            checkpoint.
        memory_temperature: Of the projection onto the memory. Defaults to 0.01, DeCap's.
        memory_chunk: Texts of the memory at a time. Defaults to 65,536; some 4,096 stay in a CPU's
            cache, which takes half the time there.
        dropout: Of the token. Defaults to 0.5, as PCMMixup's.
        num_tokens: Number L of tokens. Defaults to 1.
        linear: Whether the tokens are the projection of the feature as it is, without ReLU,
            LayerNorm and dropout. Defaults to False.
        init_cfg: MMEngine's initialisation config. Defaults to None: PyTorch's own.

    Raises:
        MissingFileError: If there is no such store.
        UserError: If the store is of another width, or has no captions, or ``num_tokens`` is below
            1.
    """

    input_files = {"memory": FileKind.FEATURE_STORE}

    def __init__(
        self,
        clip_dim: int,
        embed_dims: int = 512,
        noise_var: float = 0.016,
        memory: str | os.PathLike | None = None,
        memory_temperature: float = 0.01,
        memory_chunk: int = 65_536,
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
        self.memory_temperature = memory_temperature
        self.memory_chunk = memory_chunk
        self.memory: Tensor
        self.register_buffer("memory", torch.zeros(0, clip_dim), persistent=False)
        self.num_tokens = num_tokens
        self.linear = linear
        self.global_proj = nn.Linear(clip_dim, num_tokens * embed_dims)
        if not linear:
            self.norm = nn.LayerNorm(embed_dims)
            self.dropout = Dropout(dropout)
        if memory is not None:
            store = FeatureStore(memory)
            every = np.arange(store.num_captions)
            self.set_memory(store.read_rows("caption_feats", every, dtype=None))

    def set_memory(self, texts: Tensor) -> None:
        """Give the texts that image features are put together from.

        Args:
            texts: (M, Dc) of any floating type, CLIP text embeddings of length 1; kept in their
                type.

        Raises:
            UserError: If there are none, or they are of another width than the neck.
        """
        if not len(texts) or texts.shape[1:] != (self.clip_dim,):
            raise UserError(
                f"the memory is {tuple(texts.shape)} but the neck needs (M, clip_dim="
                f"{self.clip_dim}), at least one text: give the store of a CLIP of this width"
            )
        self.memory = texts.to(self.global_proj.weight.device)

    def forward(self, patch_feats: Tensor | None, global_feats: Tensor) -> NeckOutput:
        """Make the tokens.

        Args:
            patch_feats: Not used; here so that necks can be exchanged.
            global_feats: (B, Dc), an image's or a caption's CLIP feature.

        Returns:
            Tokens (B, L, D), and a mask that is all True.

        Raises:
            UserError: If the features have another width than the neck.
        """
        feats = self.check(global_feats)
        if not self.training and len(self.memory):
            # DeCap, Sec. 3.3: only images are projected; in training the texts are the memory's.
            feats = self.project(feats)
        feats = inject_noise(feats, self.noise_var if self.training else 0.0)
        size = (self.num_tokens, self.embed_dims)
        tokens = self.finish(self.global_proj(feats).unflatten(-1, size))  # (B, L, D)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return NeckOutput(tokens, mask)

    def check(self, global_feats: Tensor) -> Tensor:
        """The features (B, Dc) in float32.

        Raises:
            UserError: If they have another width than the neck.
        """
        if global_feats.shape[1:] != (self.clip_dim,):
            raise UserError(
                f"global_feats are {tuple(global_feats.shape)} but the neck was built for "
                f"(B, clip_dim={self.clip_dim}): set it to the features' size"
            )
        return global_feats.float()

    def project(self, feats: Tensor) -> Tensor:
        """Features (B, Dc) put together from the texts of the memory."""
        chunks = self.memory.split(self.memory_chunk)
        return project_onto_text_memory(feats, chunks, self.memory_temperature)

    def finish(self, tokens: Tensor) -> Tensor:
        """Projected features (..., D) as the decoder gets them."""
        return tokens if self.linear else self.dropout(self.norm(F.relu(tokens)))
