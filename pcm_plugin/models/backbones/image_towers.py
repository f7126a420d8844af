"""Image towers of CLIPs: patch features, and their projection into the joint space.

Shapes: B images, N patches, Dv width of patch features, Dc width of the joint space.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.patch_affinity import fold_head_bias
from pcm_plugin.models.functional.patch_attention import check_patch_mode, patch_attention


class ImageTower:
    """Base class of wrappers around the image tower of a CLIP, which they do not change.

    Args:
        visual: open_clip's module, ``clip.visual``.

    Attributes:
        grid (tuple[int, int]): Number of rows and columns of patches.
        patch_dim (int): Width Dv of the patch features of :meth:`extract_feat`.
        clip_dim (int): Width Dc of the joint space.
        patches_in_joint_space (bool): Whether the patch features are in the joint space already.
        ln_post_eps (float | None): Epsilon of the head's norm; None without a head.
    """

    grid: tuple[int, int]
    patch_dim: int
    clip_dim: int
    patches_in_joint_space = False
    ln_post_eps: float | None = None

    def __init__(self, visual: Any) -> None:
        self.visual = visual

    def extract_feat(self, images: Tensor, pool: int) -> tuple[Tensor, Tensor]:
        """Compute the features of images.

        Args:
            images: (B, 3, H, W), preprocessed.
            pool: Side of the windows over which patches are averaged.

        Returns:
            Patch features (B, N, Dv) after pooling, the last hidden states; and CLIP's image
            embeddings (B, Dc).
        """
        out = self.visual.forward_intermediates(images, indices=1)
        return _pool_patches(out["image_intermediates"][-1], pool), out["image_features"]

    def head(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the head that projects patches into the joint space.

        Returns:
            Weight (Dv,) and bias (Dv,) of the LayerNorm, and the projection (Dv, Dc).

        Raises:
            UserError: If there is no head, since patches are in the joint space already.
        """
        raise UserError(
            "its patches are in the joint space already: set patches_in_joint_space=True"
        )


class PlainTower(ImageTower):
    """open_clip's own Vision Transformer, whose head is ``ln_post``, then ``proj``.

    Args:
        visual: open_clip's module, ``clip.visual``.
        patch_mode: Attention of the last block for the patch features, see
            :func:`~pcm_plugin.models.functional.patch_attention.patch_attention`. The image
            embedding is always that of CLIP. Defaults to ``'plain'``.
    """

    def __init__(self, visual: Any, patch_mode: str = "plain") -> None:
        super().__init__(visual)
        self.patch_mode = patch_mode
        self.grid = visual.grid_size
        self.patch_dim, self.clip_dim = visual.proj.shape
        self.ln_post_eps = visual.ln_post.eps

    def extract_feat(self, images: Tensor, pool: int) -> tuple[Tensor, Tensor]:
        """See :class:`ImageTower`."""
        if self.patch_mode == "plain":
            return super().extract_feat(images, pool)
        # The last block is applied twice, since the image embedding needs CLIP's own attention.
        blocks = self.visual.transformer.resblocks
        out = self.visual.forward_intermediates(
            images, indices=[len(blocks) - 2], output_fmt="NLC", output_extra_tokens=True
        )
        parts = (out["image_intermediates_prefix"][0], out["image_intermediates"][0])
        tokens = apply_block(blocks[-1], torch.cat(parts, dim=1), self.patch_mode)  # (B, 1 + N, Dv)
        maps = tokens[:, 1:].transpose(1, 2).unflatten(2, self.grid)  # (B, Dv, rows, columns)
        return _pool_patches(maps, pool), out["image_features"]

    @staticmethod
    def supports_patch_modes(visual: Any) -> bool:
        """Return whether the attention of the last block of a tower can be changed."""
        from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

        if not isinstance(visual, VisionTransformer):
            return False
        blocks = visual.transformer.resblocks
        return len(blocks) > 1 and type(blocks[-1]) is ResidualAttentionBlock

    def head(self) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`ImageTower`."""
        return self.visual.ln_post.weight, self.visual.ln_post.bias, self.visual.proj


class LocalTower(PlainTower):
    """:class:`~.local_vit.LocalVisionTransformer`, the same tower without open_clip."""

    def extract_feat(self, images: Tensor, pool: int) -> tuple[Tensor, Tensor]:
        """See :class:`ImageTower`."""
        maps, features = self.visual(images)
        return _pool_patches(maps, pool), features


class LinearTower(ImageTower):
    """timm's Vision Transformer or EVA with one norm, before or after pooling, and a linear layer.

    The head of single patches is the same whether CLIP pools the class token or the mean.
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
        self.ln_post_eps = self._norm.eps

    @staticmethod
    def supports(visual: Any) -> bool:
        """Return whether a tower of timm has such a head."""
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

    def head(self) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`ImageTower`; a bias after the projection is folded into the norm's bias."""
        weight, bias = self._norm.weight, self._norm.bias
        if self._linear is None:
            return weight, bias, torch.eye(self.patch_dim, device=weight.device)
        proj = self._linear.weight.T
        if self._linear.bias is not None:
            bias = bias + fold_head_bias(proj, self._linear.bias).to(bias)
        return weight, bias, proj


class AttentionTower(ImageTower):
    """timm's Vision Transformer with attention pooling, such as SigLIP's.

    It has no linear head. The feature of a patch is what the pooled feature would be if all
    attention were on this patch: its value is passed through the output projection of the pooling,
    the residual MLP and the following layers. MaskCLIP (Zhou et al. 2022) does this for the value
    path of CLIP's ResNets; using it for SigLIP, with the MLP, is our choice. With ``pool`` the
    attention is uniform over each window. If all patches of an image are equal, and the tower has
    no class token, each patch feature equals the global feature.
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
        if not layers and isinstance(trunk.attn_pool.proj, nn.Linear):
            layers = [trunk.attn_pool.proj]
        self.clip_dim = layers[-1].out_features if layers else trunk.embed_dim
        self.patch_dim = self.clip_dim

    @staticmethod
    def supports(visual: Any) -> bool:
        """Return whether a tower of timm has such a pooling."""
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
        """Compute the pooled feature if all attention is on one patch: (B, N, Dv) to (B, N, Dc)."""
        trunk = self.visual.trunk
        pool = trunk.attn_pool
        # The values are the second half; heads are separate columns.
        _, weight = pool.kv.weight.chunk(2)
        bias = None if pool.kv.bias is None else pool.kv.bias.chunk(2)[1]
        x = pool.proj(F.linear(states, weight, bias))
        if pool.mlp is not None:
            x = x + pool.mlp(pool.norm(x))
        return self.visual.head(trunk.head(trunk.fc_norm(x)))


def apply_block(block: Any, tokens: Tensor, mode: str) -> Tensor:
    """Apply a residual attention block of open_clip with another attention.

    Args:
        block: ``ResidualAttentionBlock`` of open_clip.
        tokens: (B, L, D).
        mode: See :func:`~pcm_plugin.models.functional.patch_attention.patch_attention`.

    Returns:
        (B, L, D). With ``'plain'`` these are the values of ``block(tokens)``.
    """
    attn = block.attn
    projected = F.linear(block.ln_1(tokens), attn.in_proj_weight, attn.in_proj_bias)  # (B, L, 3D)
    heads = projected.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    query, key, value = heads  # (B, H, L, d) each
    mixed = patch_attention(query, key, value, mode).transpose(1, 2).flatten(2)  # (B, L, D)
    tokens = tokens + block.ls_1(attn.out_proj(mixed))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def wrap_image_tower(visual: Any, patch_mode: str = "plain") -> ImageTower | None:
    """Wrap the image tower of a CLIP.

    Args:
        visual: open_clip's module, ``clip.visual``.
        patch_mode: See :class:`PlainTower`. Defaults to ``'plain'``.

    Returns:
        The tower; None if it is not known how to project its patches into the joint space, e.g.
        for ResNets, CoCa and hybrid towers.

    Raises:
        UserError: If the tower has no such mode.
    """
    check_patch_mode(patch_mode)
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer
    from timm.models import eva, vision_transformer

    if patch_mode != "plain" and not PlainTower.supports_patch_modes(visual):
        raise UserError(
            f"`patch_mode` must be 'plain' for the image tower {tower_name(visual)}, got "
            f"`{patch_mode!r}`: only open_clip's own Vision Transformers with two or more "
            "standard blocks have other modes, such as 'ViT-B-32-quickgelu'"
        )
    if isinstance(visual, VisionTransformer):
        return None if visual.attn_pool else PlainTower(visual, patch_mode)
    # Subclasses of these have other poolings.
    known = (eva.Eva, vision_transformer.VisionTransformer)
    if not isinstance(visual, TimmModel) or type(visual.trunk) not in known:
        return None
    for tower in (LinearTower, AttentionTower):
        if tower.supports(visual):
            return tower(visual)
    return None


def tower_name(visual: Any) -> str:
    """Return the name of the architecture of an image tower for messages."""
    return type(getattr(visual, "trunk", visual)).__name__


def _non_identity(*layers: nn.Module) -> list[Any]:
    """Return the layers that are not the identity in eval mode."""
    return [layer for layer in layers if not isinstance(layer, nn.Identity | nn.Dropout)]


def _pool_patches(maps: Tensor, pool: int) -> Tensor:
    """Average patches over windows: (B, D, rows, columns) to (B, N, D)."""
    return F.avg_pool2d(maps, pool).flatten(2).transpose(1, 2)
