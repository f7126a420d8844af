# python tools/train.py configs/pcm_coco.py
#
# PCM-Net on COCO, CLIP ViT-B/32: the released hyper-parameters, in-domain CIDEr 103.8 in the
# paper. Without the data it says which file is missing and which command makes it.
_base_ = [
    "./_base_/models/pcm_vitb32.py",
    "./_base_/datasets/coco.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

model = dict(
    vocabulary="data/coco/vocabulary.txt",
    neck=dict(
        concepts="data/coco/vit_b32/concepts.safetensors",
        clip_head="data/coco/vit_b32/train_store/clip_head.safetensors",
    ),
)
