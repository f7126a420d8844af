"""Small image towers like those of EVA and SigLIP, registered in timm for tests."""

from typing import Any

from timm.models import Eva, VisionTransformer, register_model

KINDS: dict[str, dict[str, Any]] = {
    "eva": {"timm_model_name": "tiny_eva", "timm_pool": "token", "timm_proj": None},
    "siglip": {"timm_model_name": "tiny_siglip", "timm_pool": "map", "timm_proj": "none"},
}
"""Entries of ``vision_cfg`` as in open_clip's EVA02-B-16 and ViT-B-16-SigLIP2."""


@register_model
def tiny_eva(num_classes: int = 0, global_pool: str = "token", **_: Any) -> Eva:
    """Build an EVA02 tower with 4 x 4 patches of 4 pixels."""
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
    """Build a SigLIP tower with 4 x 4 patches of 4 pixels, or a plain one with a class token."""
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
