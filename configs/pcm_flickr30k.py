# pcm train configs/pcm_flickr30k.py
#
# PCM-Net on Flickr30k, CLIP ViT-B/32, with the released hyper-parameters. If data are missing, a
# message names the files and the commands that create them.
_base_ = [
    "./_base_/models/pcm_vitb32.py",
    "./_base_/datasets/flickr30k.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=dict(concepts=_base_.files.concepts, clip_head=_base_.files.clip_head),
)
