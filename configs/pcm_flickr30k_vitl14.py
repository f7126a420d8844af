# pcm train configs/pcm_flickr30k_vitl14.py
#
# PCM-Net on Flickr30k, CLIP ViT-L/14, with the released hyper-parameters.
_base_ = [
    "./_base_/models/pcm_vitl14.py",
    "./_base_/datasets/flickr30k_vitl14.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=dict(concepts=_base_.files.concepts, clip_head=_base_.files.clip_head),
)
