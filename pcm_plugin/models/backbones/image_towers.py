"""The image towers of CLIPs: how each gives patches and leads them into the joint space."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.patch_affinity import fold_head_bias


class ImageTower(ABC):
    """A CLIP's image tower, read but not changed.

    Args:
        visual: open_clip's module.

    Attributes:
        grid (tuple[int, int]): Rows and columns of its patches.
        patch_dim (int): Width Dv of the patches that :meth:`extract_feat` gives.
        clip_dim (int): Width Dc of the joint space.
        patches_in_joint_space (bool): Whether these patches are in the joint space already.
        head_eps (float | None): Of the head's norm; None without a head.
    """

    grid: tuple[int, int]
    patch_dim: int
    clip_dim: int
    patches_in_joint_space = False
    head_eps: float | None = None

    def __init__(self, visual: Any) -> None:
        self.visual = visual

    @abstractmethod
    def extract_feat(self, images: Tensor, pool: int) -> tuple[Tensor, Tensor]:
        """Patches (B, N, Dv) of images (B, 3, H, W), pooled, and what CLIP makes of all (B, Dc)."""

    def head(self) -> tuple[Tensor, Tensor, Tensor]:
        """Norm's weight (Dv,) and bias (Dv,), and projection (Dv, Dc), that lead patches on."""
        raise UserError(
            "its patches are in the joint space already, without a head: set patches_in_joint_space=True"
        )


class PlainTower(ImageTower):
    """open_clip's own Vision Transformer: ``ln_post``, then ``proj``."""

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        self.grid = visual.grid_size
        self.patch_dim, self.clip_dim = visual.proj.shape
        self.head_eps = visual.ln_post.eps

    def extract_feat(self, images: Tensor, pool: int) -> tuple[Tensor, Tensor]:
        """See :class:`ImageTower`; patches are the last hidden states."""
        out = self.visual.forward_intermediates(images, indices=1)
        return _pool_patches(out["image_intermediates"][-1], pool), out["image_features"]

    def head(self) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`ImageTower`."""
        return self.visual.ln_post.weight, self.visual.ln_post.bias, self.visual.proj


class LinearTower(ImageTower):
    """timm's Vision Transformer, or EVA's: a norm before or after the pooling, then one layer.

    Whether CLIP takes the class token or the mean of the patches, a patch goes the same way.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        trunk = visual.trunk
        self.grid = trunk.patch_embed.grid_size
        self.patch_dim = trunk.num_features
        (self._norm,) = _non_identity(trunk.norm, trunk.fc_norm)
        layers = _non_identity(trunk.head, *visual.head.children())
        self._linear = layers[0] if layers else None
        self.clip_dim = layers[0].out_features if layers else self.patch_dim
        self.head_eps = self._norm.eps

    @staticmethod
    def supports(visual: Any) -> bool:
        """Whether a tower of timm has such a head."""
        trunk = visual.trunk
        norms = _non_identity(trunk.norm, trunk.fc_norm)
        layers = _non_identity(trunk.head, *visual.head.children())
        return (
            trunk.attn_pool is None
            and trunk.global_pool in ("token", "avg")
            and len(norms) == 1
            and isinstance(norms[0], nn.LayerNorm)
            and norms[0].bias is not None
            and len(layers) <= 1
            and all(isinstance(layer, nn.Linear) for layer in layers)
        )

    def extract_feat(self, images: Tensor, pool: int) -> tuple[Tensor, Tensor]:
        """See :class:`ImageTower`; patches are the last hidden states."""
        out = self.visual.forward_intermediates(images, indices=1)
        return _pool_patches(out["image_intermediates"][-1], pool), out["image_features"]

    def head(self) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`ImageTower`; a bias after the projection is in the norm's."""
        weight, bias = self._norm.weight, self._norm.bias
        if self._linear is None:
            return weight, bias, torch.eye(self.patch_dim, device=weight.device)
        proj = self._linear.weight.T
        if self._linear.bias is not None:
            bias = bias + fold_head_bias(proj, self._linear.bias).to(bias)
        return weight, bias, proj


class AttentionTower(ImageTower):
    """timm's Vision Transformer whose patches are pooled by attention, as SigLIP's.

    There is no linear head. A patch stands for what the pooled feature would be if all attention
    went to it: its value goes through the pool's output projection, its residual MLP and what
    follows. (MaskCLIP, Zhou et al. 2022, takes the value path of CLIP's ResNets so; with the MLP
    and for SigLIP it is our choice.) With ``pool`` the attention is spread evenly over each window.
    For a picture whose patches are all alike, and a tower without class token, every patch
    therefore equals the global feature.
    """

    patches_in_joint_space = True

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        trunk = visual.trunk
        self.grid = trunk.patch_embed.grid_size
        layers = [
            layer
            for part in (trunk.head, visual.head)
            for layer in part.modules()
            if isinstance(layer, nn.Linear)
        ]
        self.clip_dim = layers[-1].out_features if layers else trunk.attn_pool.out_features
        self.patch_dim = self.clip_dim

    @staticmethod
    def supports(visual: Any) -> bool:
        """Whether a tower of timm pools so."""
        from timm.layers import AttentionPoolLatent

        pool = visual.trunk.attn_pool
        return (
            type(pool) is AttentionPoolLatent
            and pool.pos_embed is None
            and pool.latent_len == 1
            and pool.pool == "token"
        )

    def extract_feat(self, images: Tensor, pool: int) -> tuple[Tensor, Tensor]:
        """See :class:`ImageTower`; patches are in the joint space."""
        out = self.visual.forward_intermediates(images, indices=1, normalize_intermediates=True)
        patches = self._pool_single_patch(_pool_patches(out["image_intermediates"][-1], pool))
        return patches, out["image_features"]

    def _pool_single_patch(self, states: Tensor) -> Tensor:
        trunk = self.visual.trunk
        pool = trunk.attn_pool
        # The second half of keys and values; each head's are its own columns.
        _, weight = pool.kv.weight.chunk(2)
        bias = None if pool.kv.bias is None else pool.kv.bias.chunk(2)[1]
        x = pool.proj(F.linear(states, weight, bias))
        if pool.mlp is not None:
            x = x + pool.mlp(pool.norm(x))
        return self.visual.head(trunk.head(trunk.fc_norm(x)))


def wrap_image_tower(visual: Any) -> ImageTower | None:
    """Find out how a CLIP's image tower works.

    Args:
        visual: open_clip's module, ``clip.visual``.

    Returns:
        The tower; None if patches have no known way into the joint space, as in ResNets, CoCa and
        mixed towers.
    """
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer
    from timm.models import eva, vision_transformer

    if isinstance(visual, VisionTransformer):
        return None if visual.attn_pool else PlainTower(visual)
    # Classes derived from these pool in their own ways.
    known = (eva.Eva, vision_transformer.VisionTransformer)
    if not isinstance(visual, TimmModel) or type(visual.trunk) not in known:
        return None
    for tower in (LinearTower, AttentionTower):
        if tower.supports(visual):
            return tower(visual)
    return None


def _non_identity(*layers: nn.Module) -> list[Any]:
    """The layers that do something in evaluation."""
    return [layer for layer in layers if not isinstance(layer, nn.Identity | nn.Dropout)]


def _pool_patches(maps: Tensor, pool: int) -> Tensor:
    """(B, D, rows, columns) to (B, N, D), averaged over windows."""
    return F.avg_pool2d(maps, pool).flatten(2).transpose(1, 2)
