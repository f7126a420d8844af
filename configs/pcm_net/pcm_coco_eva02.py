# pcm train configs/pcm_net/pcm_coco_eva02.py
#
# PCM-Net on COCO with EVA02-CLIP ViT-B/16 (Sun et al. 2023): 14 x 14 patches, averaged 2 x 2. The
# choice of this CLIP is ours; all other settings, w = 2.5 too, are the released ones for OpenAI's
# ViT-B/32 and were not tried with it. A larger model needs the same changes: EVA02-L-14,
# merged2b_s4b_b131k (patch_dim 1024, clip_dim 768, 64 patches).
_base_ = "../pcm_coco.py"

clip = dict(model_name="EVA02-B-16", pretrained="merged2b_s8b_b131k", pool=2)

model = dict(
    neck=dict(
        # That of the last norm of EVA's patches, in timm.
        ln_post_eps=1e-6,
        concepts="data/coco/eva02_b16/concepts.safetensors",
        clip_head="data/coco/eva02_b16/train_store/clip_head.safetensors",
    ),
)
train_dataloader = dict(dataset=dict(store="data/coco/eva02_b16/train_store"))
val_dataloader = dict(dataset=dict(store="data/coco/eva02_b16/val_store"))
test_dataloader = dict(dataset=dict(store="data/coco/eva02_b16/test_store"))
