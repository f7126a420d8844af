# python tools/train.py configs/pcm_coco_vitl14.py
#
# PCM-Net on COCO, CLIP ViT-L/14: the released hyper-parameters, in-domain CIDEr 113.6 in the
# paper.
_base_ = [
    "./_base_/models/pcm_vitl14.py",
    "./_base_/datasets/coco.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

model = dict(
    vocabulary="data/coco/vocabulary.txt",
    # On COCO, and not on Flickr30k, the released ViT-L/14 has more dropout than ViT-B/32.
    encoder=dict(dropout=0.25),
    decoder=dict(dropout=0.25),
    neck=dict(
        concepts="data/coco/vit_l14/concepts.safetensors",
        clip_head="data/coco/vit_l14/train_store/clip_head.safetensors",
    ),
)
train_dataloader = dict(dataset=dict(store="data/coco/vit_l14/train_store"))
val_dataloader = dict(dataset=dict(store="data/coco/vit_l14/val_store"))
test_dataloader = dict(dataset=dict(store="data/coco/vit_l14/test_store"))
