"""CLIP of open_clip as a backbone: images to patch features and a global feature.

Shapes: B images, N patches, Dv width of patch features, Dc width of the joint space.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.clip_head import CLIP_HEAD_KEYS
from pcm_plugin.models.backbones.base import Backbone
from pcm_plugin.models.backbones.clip_weights import architecture, load_clip
from pcm_plugin.models.backbones.image_towers import (
    ImageTower,
    LocalTower,
    tower_name,
    wrap_image_tower,
)
from pcm_plugin.models.backbones.local_vit import load_local_vit
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class OpenCLIPBackbone(Backbone):
    """Frozen CLIP with a Vision Transformer as image tower, such as OpenAI's, DFN's, EVA or SigLIP.

    It stays in eval mode, and its weights are neither trained nor saved in checkpoints.

    Args:
        model_name: An architecture of open_clip, such as ``'ViT-B-32-quickgelu'``;
            ``'hf-hub:ORG/REPO'``; or ``'local-dir:FOLDER'`` for a folder with open_clip's
            ``open_clip_config.json``, weights and tokenizer.
        pretrained: open_clip's tag of the weights, such as ``'openai'``, or a file: open_clip's
            (safetensors or a state dict) or OpenAI's ``.pt``, which is read without running its
            code. If the file does not show whether it was trained with QuickGELU, the model name
            must state it: ``'ViT-B-32-quickgelu'`` or ``'ViT-B-32-gelu'``. Must be None with
            ``'hf-hub:'`` and ``'local-dir:'``, which include the weights. Defaults to None.
        pool: Side of the windows over which patches are averaged: 1 for ViT-B/32, 2 for ViT-L/14
            as in the released features (16 x 16 patches to 64). Defaults to 1.
        patch_mode: Attention of the last block for the patch features: ``'plain'`` for that of
            CLIP, as in the released features; ``'maskclip'`` or ``'sclip'``, which are defined in
            :func:`~pcm_plugin.models.functional.patch_attention.patch_attention`, for open_clip's
            own Vision Transformers. The global feature is always that of CLIP. Defaults to
            ``'plain'``.
        defer_text: Whether to load, from a local folder, only the image tower until texts are
            encoded. If the tower is a plain Vision Transformer, open_clip is not imported then;
            the features are the same. Defaults to False.
        init_cfg: Not used; MMEngine passes it to every module.

    Attributes:
        patch_dim (int): Width Dv of the patch features.
        clip_dim (int): Width Dc of the joint space.
        patches_in_joint_space (bool): Whether patches are in the joint space already, as for
            SigLIP, whose head is not linear. :meth:`clip_head` is not available then.
        ln_post_eps (float | None): Epsilon of the norm of :meth:`clip_head`.
        num_patches (int): N, after pooling.
        grid (tuple[int, int]): Number of rows and columns of patches, after pooling.
        resize_mode (str): How ``preprocess`` fits an image into CLIP's input.
        preprocess: Maps a PIL image to a (3, H, W) tensor.

    Raises:
        MissingFileError: If a local folder or a weights file is missing.
        UserError: If open_clip has no such model or weights, or they cannot be downloaded; a
            weights file cannot be read safely or does not fit the model; the name does not state
            the right activation; the image tower does not have the ``patch_mode``; it is not known
            how to project its patches into the joint space; or ``pool`` does not divide its grid.
    """

    def __init__(
        self,
        model_name: str,
        pretrained: str | None = None,
        pool: int = 1,
        patch_mode: str = "plain",
        defer_text: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.pretrained = pretrained
        is_local = defer_text and not pretrained and patch_mode == "plain"
        local = load_local_vit(_folder_of(model_name)) if is_local else None
        self._is_deferred = local is not None
        if local is not None:
            visual, self.preprocess = local
            tower: ImageTower = LocalTower(visual.requires_grad_(False))
            image_mean, image_std = self.preprocess.mean, self.preprocess.std
            self.resize_mode = "squash" if self.preprocess.squash else "shortest"
        else:
            clip, self.preprocess = load_clip(model_name, pretrained)
            visual, tower = clip.visual, _wrap(model_name, clip.visual, patch_mode)
            image_mean, image_std = visual.image_mean, visual.image_std
            self.resize_mode = visual.preprocess_cfg["resize_mode"]
            # In a tuple it is not a submodule: it has no parameters to train, broadcast or save.
            self._frozen = (clip.eval().requires_grad_(False),)
        rows, columns = tower.grid
        if rows % pool or columns % pool:
            raise UserError(
                f"`pool` must divide the {rows} x {columns} patches of {model_name}, got `{pool}`: "
                "pass 1 to keep all patches"
            )
        self.model_name = model_name
        self.pool = pool
        self.patch_mode = patch_mode
        self.grid = (rows // pool, columns // pool)
        self.num_patches = self.grid[0] * self.grid[1]
        self.patch_dim, self.clip_dim = tower.patch_dim, tower.clip_dim
        self.patches_in_joint_space, self.ln_post_eps = (
            tower.patches_in_joint_space,
            tower.ln_post_eps,
        )
        self.image_size = visual.image_size
        self.image_mean, self.image_std = image_mean, image_std
        self._tower = tower

    @property
    def clip(self) -> Any:
        """The open_clip model, which is loaded on first access if it was deferred."""
        if self._is_deferred:
            clip, _ = load_clip(self.model_name, self.pretrained)
            clip = clip.to(self._tower.visual.proj)  # same device and dtype
            self._frozen = (clip.eval().requires_grad_(False),)
            self._tower = _wrap(self.model_name, clip.visual, self.patch_mode)
            self._is_deferred = False
        return self._frozen[0]

    @functools.cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """Tokenizer of this model from open_clip."""
        from open_clip import get_tokenizer

        try:
            # The config of a CLIP may request that transformers run code from its folder.
            return get_tokenizer(architecture(self.model_name), trust_remote_code=False)
        except TypeError:  # open_clip's own tokenizers do not have this argument
            return get_tokenizer(architecture(self.model_name))

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features of images.

        Args:
            images: (B, 3, H, W), preprocessed.

        Returns:
            Patch features (B, N, Dv) after pooling, which are the last hidden states before the
            head's norm or, with ``patches_in_joint_space``, CLIP's embedding of each single patch
            (not normalized). Global features (B, Dc) of norm 1, equal to open_clip's
            ``encode_image``.

        Raises:
            UserError: If the images do not have the size that this CLIP requires.
        """
        if images.shape[-2:] != self.image_size:
            raise UserError(
                f"`images` must be (B, 3, {self.image_size}) for {self.model_name}, "
                f"got {tuple(images.shape)}: preprocess them with the backbone's `preprocess`"
            )
        patches, features = self._tower.extract_feat(images, self.pool)
        return patches, F.normalize(features, dim=-1)

    def set_patch_mode(self, patch_mode: str) -> None:
        """Change the attention of the last block for the patches.

        Args:
            patch_mode: As in the constructor.

        Raises:
            UserError: If the image tower has no such mode.
        """
        if patch_mode != self.patch_mode:
            self._tower = _wrap(self.model_name, self.clip.visual, patch_mode)
            self.patch_mode = patch_mode

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Compute the text embeddings of CLIP.

        Args:
            texts: n texts; the tokenizer truncates them to CLIP's context length.

        Returns:
            (n, Dc) of norm 1, on the device of the model.
        """
        tokens, clip = self.tokenizer(list(texts)), self.clip
        device = next(clip.parameters()).device
        end = _pooled_positions(clip, tokens)
        if end is None:
            return clip.encode_text(tokens.to(device), normalize=True)
        # The tokens after the end are padding that a causal tower does not attend to. Captions need
        # about 15 of the 77 tokens.
        length = int(end.max()) + 1
        tokens, rows = tokens[:, :length].to(device), torch.arange(len(end), device=device)
        x = clip.token_embedding(tokens).to(clip.transformer.get_cast_dtype())  # (n, length, D)
        x = x + clip.positional_embedding[:length].to(x.dtype)
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
        x = clip.ln_final(x)[rows, end.to(device)]  # (n, D)
        return F.normalize(x @ clip.text_projection, dim=-1)

    def clip_head(self) -> dict[str, Tensor]:
        """Return the head that projects patches into the joint space.

        Returns:
            ``ln_post.weight`` (Dv,), ``ln_post.bias`` (Dv,) and ``proj`` (Dv, Dc), float32 copies
            on the CPU. A bias after the projection, as in EVA, is folded into ``ln_post.bias``.

        Raises:
            UserError: If the patches are in the joint space already, so that there is no head, or a
                bias after the projection cannot be folded.
        """
        try:
            head = self._tower.head()
        except UserError as error:
            raise UserError(f"{self.model_name} has no CLIP head: {error}") from None
        return {
            key: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            for key, tensor in zip(CLIP_HEAD_KEYS, head, strict=True)
        }

    def _apply(self, fn: Callable, recurse: bool = True) -> "OpenCLIPBackbone":
        super()._apply(fn, recurse)
        (self._tower.visual if self._is_deferred else self.clip)._apply(fn, recurse)
        return self


def _folder_of(model_name: str) -> Path | None:
    """Return the folder of a model name with ``local-dir:``, or None for another name."""
    folder = model_name.removeprefix("local-dir:")
    return Path(folder) if folder != model_name else None


def _wrap(model_name: str, visual: Any, patch_mode: str) -> ImageTower:
    """Wrap the image tower of open_clip's model."""
    tower = wrap_image_tower(visual, patch_mode)
    if tower is None:
        raise UserError(
            "`model_name` must be a CLIP whose patches can be projected into the joint space, "
            f"got `{model_name}` with the image tower {tower_name(visual)}: choose a plain Vision "
            "Transformer ('ViT-B-32-quickgelu'), EVA ('EVA02-B-16') or SigLIP "
            "('ViT-B-16-SigLIP2')"
        )
    return tower


def _pooled_positions(clip: Any, tokens: Tensor) -> Tensor | None:
    """Return the positions (n,) of the tokens that CLIP pools.

    None if the text tower may attend to later tokens, or pools in another way.
    """
    from open_clip import CLIP

    if not isinstance(clip, CLIP) or clip.attn_mask is None:
        return None
    if not isinstance(clip.text_projection, Tensor):
        return None
    if clip.text_pool_type == "argmax":
        return tokens.argmax(dim=-1)
    if clip.text_pool_type == "eos":
        return (tokens == clip.text_eos_id).int().argmax(dim=-1)
    return None
