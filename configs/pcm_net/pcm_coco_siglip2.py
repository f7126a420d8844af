# python tools/train.py configs/pcm_net/pcm_coco_siglip2.py
#
# PCM-Net on COCO with SigLIP 2 ViT-B/16 (Tschannen et al. 2025): 14 x 14 patches averaged 2 x 2.
# SigLIP pools its patches by attention. A patch goes into the joint space as the pooled feature
# would be with all attention on it, so that features come without a CLIP head. No published figure:
# that road and the settings named below are ours and not tried with its weights.
_base_ = "../pcm_coco.py"

clip = dict(model_name="ViT-B-16-SigLIP2", pretrained="webli", pool=2)

model = dict(
    neck=dict(
        patch_dim=768,
        clip_dim=768,
        patches_in_joint_space=True,
        clip_head=None,
        concepts="data/coco/siglip2_b16/concepts.safetensors",
        # As for CLIP, where it is the inverse of the learned scale of logits. SigLIP learns a scale
        # of its own, said to be near 100 too; its bias is the same for all concepts and cancels.
        temperature=0.01,
    ),
    # SigLIP's cosines are lower than CLIP's: about 0.1 to 0.2 for a pair that fits, by hearsay, so
    # that w = 5 weights it 0.5 to 1. `tools/store.py info` shows 2.5 times the cosines of a store.
    loss=dict(clip_weight=5.0),
)
train_dataloader = dict(dataset=dict(store="data/coco/siglip2_b16/train_store"))
val_dataloader = dict(dataset=dict(store="data/coco/siglip2_b16/val_store"))
test_dataloader = dict(dataset=dict(store="data/coco/siglip2_b16/test_store"))
