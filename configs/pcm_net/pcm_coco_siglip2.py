# pcm train configs/pcm_net/pcm_coco_siglip2.py
#
# PCM-Net on COCO with SigLIP 2 ViT-B/16 (Tschannen et al. 2025): 14 x 14 patches, averaged 2 x 2.
# SigLIP pools its patches by attention. The feature of a patch in the joint space is the pooled
# feature with all attention on this patch, so no CLIP head is needed. This mapping and the settings
# below are ours and were not tried with its weights.
_base_ = "../pcm_coco.py"

clip = dict(model_name="ViT-B-16-SigLIP2", pretrained="webli", pool=2)

model = dict(
    neck=dict(
        patch_dim=768,
        clip_dim=768,
        patches_in_joint_space=True,
        clip_head=None,
        concepts="data/coco/siglip2_b16/concepts.safetensors",
        # As for CLIP, where it is the inverse of the learned logit scale. SigLIP's logit scale is
        # near 100 as well, but this was not checked; its bias is the same for all concepts and
        # cancels.
        temperature=0.01,
    ),
    # SigLIP's cosines are lower than CLIP's. For matching pairs they are probably 0.1 to 0.2 (not
    # measured), and w = 5 then gives weights of 0.5 to 1. `pcm store info` prints 2.5 times
    # the cosines of a store.
    loss=dict(clip_weight=5.0),
)
train_dataloader = dict(dataset=dict(store="data/coco/siglip2_b16/train_store"))
val_dataloader = dict(dataset=dict(store="data/coco/siglip2_b16/val_store"))
test_dataloader = dict(dataset=dict(store="data/coco/siglip2_b16/test_store"))
