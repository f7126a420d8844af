# pcm train configs/pcm_net/pcm_coco_dfn.py
#
# PCM-Net on COCO with DFN's CLIP ViT-B/16 (Fang et al. 2023), trained on filtered pairs: 14 x 14
# patches, averaged 2 x 2. The choice of this CLIP is ours; all other settings, w = 2.5 too, are the
# released ones for OpenAI's ViT-B/32 and were not tried with it. Larger models need the same
# changes: ViT-L-14-quickgelu, dfn2b (patch_dim 1024, clip_dim 768, 64 patches) and
# ViT-H-14-378-quickgelu, dfn5b (1280, 1024, 81 patches with pool=3).
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
