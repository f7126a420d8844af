"""CLIP through open_clip: images to patch features and a global feature."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.clip_head import CLIP_HEAD_KEYS
from pcm_plugin.models.backbones.clip_weights import architecture, load_clip
from pcm_plugin.models.backbones.image_towers import wrap_image_tower
from pcm_plugin.registry import MODELS


@MODELS.register_module()
class OpenCLIPBackbone(BaseModule):
    """A frozen CLIP with a Vision Transformer as its image tower: OpenAI's, DFN's, EVA, SigLIP, ...

    Its weights belong to open_clip, not to a captioner: they are neither trained nor in any
    checkpoint, and it stays in evaluation mode.

    Args:
        model_name: A name of open_clip's, such as ``'ViT-B-32-quickgelu'``, ``'hf-hub:ORG/REPO'``,
            or ``'local-dir:FOLDER'`` for a folder with open_clip's ``open_clip_config.json``, its
            weights and its tokenizer.
        pretrained: open_clip's tag of the weights, such as ``'openai'``, or a file: open_clip's
            (safetensors or a state dict) or OpenAI's ``.pt``, which is read without running its
            code. With a file that does not show whether it was trained with QuickGELU, the name
            must say it: ``'ViT-B-32-quickgelu'`` or ``'ViT-B-32-gelu'``. Must be None where the
            name brings its own weights. Defaults to None.
        pool: Average patches over windows of this many by as many: 1 for ViT-B/32, 2 for ViT-L/14
            as the released features have it (16 x 16 patches to 64). Defaults to 1.
        init_cfg: Not used; MMEngine gives it to every module.

    Attributes:
        patch_dim (int): Width Dv of the patch features.
        clip_dim (int): Width Dc of the joint space.
        patches_in_joint_space (bool): Whether patches are in the joint space already, as SigLIP's, whose
            head is not linear; there is no :meth:`clip_head` then.
        head_eps (float | None): Of the norm of :meth:`clip_head`.
        num_patches (int): N, after pooling.
        grid (tuple[int, int]): Rows and columns of the patches, after pooling.
        preprocess: PIL image to (3, H, W) tensor, as this CLIP wants it.

    Raises:
        MissingFileError: If a local folder or a weights file is missing.
        RuntimeError: If open_clip knows no such model, or finds no weights.
        UserError: If name and weights disagree about QuickGELU or do not say it, a weights file
            cannot be read safely or does not fit, the image tower's patches have no known way into
            the joint space, or ``pool`` does not divide its grid.
    """

    preprocess: Callable[[Any], Tensor]

    def __init__(
        self,
        model_name: str,
        pretrained: str | None = None,
        pool: int = 1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        clip, self.preprocess = load_clip(model_name, pretrained)
        tower = wrap_image_tower(clip.visual)
        if tower is None:
            what = type(getattr(clip.visual, "trunk", clip.visual)).__name__
            raise UserError(
                f"model_name={model_name!r} has as image tower a {what} with layers or pooling of "
                "its own, and single patches have no known way through these into the joint space: "
                "choose a plain Vision Transformer ('ViT-B-32-quickgelu'), EVA ('EVA02-B-16') or "
                "SigLIP ('ViT-B-16-SigLIP2')"
            )
        rows, columns = tower.grid
        if rows % pool or columns % pool:
            raise UserError(
                f"pool={pool} does not divide the {rows} x {columns} patches of {model_name}"
            )
        self.model_name = model_name
        self.pool = pool
        self.grid = (rows // pool, columns // pool)
        self.num_patches = self.grid[0] * self.grid[1]
        self.patch_dim, self.clip_dim = tower.patch_dim, tower.clip_dim
        self.patches_in_joint_space, self.head_eps = tower.patches_in_joint_space, tower.head_eps
        self._tower = tower
        # In a tuple it is no submodule: no parameters to train, broadcast or save.
        self._frozen = (clip.eval().requires_grad_(False),)

    @property
    def clip(self) -> Any:
        """The open_clip model."""
        return self._frozen[0]

    @functools.cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """open_clip's tokenizer of this model."""
        from open_clip import get_tokenizer

        try:
            # A CLIP's config may ask transformers to run code that lies beside it.
            return get_tokenizer(architecture(self.model_name), trust_remote_code=False)
        except TypeError:  # open_clip's own tokenizers know no such setting
            return get_tokenizer(architecture(self.model_name))

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute an image's features.

        Args:
            images: (B, 3, H, W), preprocessed.

        Returns:
            Patch features (B, N, Dv), pooled: the last hidden states before the head's norm, or,
            with ``patches_in_joint_space``, what CLIP would make of each patch alone, of any length; global
            features (B, Dc) of length 1, as open_clip's ``encode_image`` gives them.

        Raises:
            UserError: If the images have another size than this CLIP was built for.
        """
        if images.shape[-2:] != self.clip.visual.image_size:
            raise UserError(
                f"images are {tuple(images.shape)} but {self.model_name} needs (B, 3, "
                f"{self.clip.visual.image_size}): preprocess them with the backbone's preprocess"
            )
        patches, features = self._tower.extract_feat(images, self.pool)
        return patches, F.normalize(features, dim=-1)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed texts.

        Args:
            texts: n texts; longer ones than CLIP's context are cut by its tokenizer.

        Returns:
            (n, Dc) of length 1, on the model's device.
        """
        tokens, clip = self.tokenizer(list(texts)), self.clip
        device = next(clip.parameters()).device
        end = _last_read(clip, tokens)
        if end is None:
            return clip.encode_text(tokens.to(device), normalize=True)
        # What stands behind a text is padding that it does not see: of 77 tokens some 15 are left.
        longest = int(end.max()) + 1
        tokens, rows = tokens[:, :longest].to(device), torch.arange(len(end), device=device)
        x = clip.token_embedding(tokens).to(clip.transformer.get_cast_dtype())
        x = x + clip.positional_embedding[:longest].to(x.dtype)
        x = clip.transformer(x, attn_mask=clip.attn_mask[:longest, :longest])
        x = clip.ln_final(x)[rows, end.to(device)]
        return F.normalize(x @ clip.text_projection, dim=-1)

    def clip_head(self) -> dict[str, Tensor]:
        """The image head that PCMMixup needs.

        Returns:
            ``ln_post.weight`` (Dv,), ``ln_post.bias`` (Dv,) and ``proj`` (Dv, Dc), float32 copies
            on the CPU. A bias that follows the projection, as EVA's, is in ``ln_post.bias``.

        Raises:
            UserError: If there is none since the patches are in the joint space already, or its
                bias does not fit before its projection.
        """
        try:
            head = self._tower.head()
        except ValueError as error:
            raise UserError(f"no head of {self.model_name}: {error}") from None
        return {
            key: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
            for key, tensor in zip(CLIP_HEAD_KEYS, head, strict=True)
        }

    def _apply(self, fn: Callable, recurse: bool = True) -> "OpenCLIPBackbone":
        super()._apply(fn, recurse)
        self.clip._apply(fn, recurse)
        return self


def _last_read(clip: Any, tokens: Tensor) -> Tensor | None:
    """The token of each text whose state CLIP takes; None where it is not known to be the last."""
    is_causal = getattr(clip, "attn_mask", None) is not None
    if not is_causal or not isinstance(getattr(clip, "text_projection", None), Tensor):
        return None
    if clip.text_pool_type == "argmax":
        return tokens.argmax(dim=-1)
    if clip.text_pool_type == "eos":
        return (tokens == clip.text_eos_id).int().argmax(dim=-1)
    return None
