"""Image towers of EVA's and SigLIP's kind, small enough for tests; timm knows them by name."""

from typing import Any

from timm.models import Eva, VisionTransformer, register_model

KINDS: dict[str, dict[str, Any]] = {
    "eva": {"timm_model_name": "tiny_eva", "timm_pool": "token", "timm_proj": None},
    "siglip": {"timm_model_name": "tiny_siglip", "timm_pool": "map", "timm_proj": "none"},
}
"""The entries of ``vision_cfg`` that open_clip's EVA02-B-16 and ViT-B-16-SigLIP2 have."""


@register_model
def tiny_eva(num_classes: int = 0, global_pool: str = "token", **_: Any) -> Eva:
    """EVA02's tower of 4 x 4 patches of 4 pixels."""
    return Eva(
        img_size=16,
        patch_size=4,
        num_classes=num_classes,
        global_pool=global_pool,
        embed_dim=16,
        depth=2,
        num_heads=2,
        qkv_fused=False,
        swiglu_mlp=True,
        scale_mlp=True,
        scale_attn_inner=True,
        use_rot_pos_emb=True,
        ref_feat_shape=(4, 4),
    )


@register_model
def tiny_siglip(num_classes: int = 0, global_pool: str = "map", **_: Any) -> VisionTransformer:
    """SigLIP's tower of 4 x 4 patches of 4 pixels; timm's plain one if pooled by a class token."""
    tower = VisionTransformer(
        img_size=16,
        patch_size=4,
        num_classes=num_classes,
        global_pool=global_pool,
        embed_dim=16,
        depth=2,
        num_heads=2,
        class_token=global_pool == "token",
    )
    # What timm's own makers give a model; open_clip looks for it.
    tower.default_cfg = {}
    return tower
