# python tools/train.py configs/pcm_net/pcm_coco_dfn.py
#
# PCM-Net on COCO with DFN's CLIP ViT-B/16 (Fang et al. 2023), trained on filtered pairs: 14 x 14
# patches averaged 2 x 2. No published figure: the choice of CLIP is ours, all else is released for
# OpenAI's ViT-B/32, w = 2.5 too, and not tried with this one. Larger ones by the same change:
# ViT-L-14-quickgelu, dfn2b (1024, 768, 64 patches); ViT-H-14-378-quickgelu, dfn5b (1280, 1024; pool
# 3, 81 patches).
_base_ = "../pcm_coco.py"

clip = dict(model_name="ViT-B-16-quickgelu", pretrained="dfn2b", pool=2)

model = dict(
    neck=dict(
        concepts="data/coco/dfn_vitb16/concepts.safetensors",
        clip_head="data/coco/dfn_vitb16/train_store/clip_head.safetensors",
    ),
)
train_dataloader = dict(dataset=dict(store="data/coco/dfn_vitb16/train_store"))
val_dataloader = dict(dataset=dict(store="data/coco/dfn_vitb16/val_store"))
test_dataloader = dict(dataset=dict(store="data/coco/dfn_vitb16/test_store"))
