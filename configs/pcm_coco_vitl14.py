# pcm train configs/pcm_coco_vitl14.py
#
# PCM-Net on COCO, CLIP ViT-L/14, with the released hyper-parameters.
_base_ = [
    "./_base_/models/pcm_vitl14.py",
    "./_base_/datasets/coco_vitl14.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=dict(concepts=_base_.files.concepts, clip_head=_base_.files.clip_head),
    # On COCO, and not on Flickr30k, the released ViT-L/14 has more dropout than ViT-B/32.
    encoder=dict(dropout=0.25),
    decoder=dict(dropout=0.25),
)
