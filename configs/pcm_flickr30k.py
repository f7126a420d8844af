# python tools/train.py configs/pcm_flickr30k.py
#
# PCM-Net on Flickr30k, CLIP ViT-B/32: the released hyper-parameters, in-domain CIDEr 61.3 in the
# paper. Without the data it says which file is missing and which command makes it.
_base_ = [
    "./_base_/models/pcm_vitb32.py",
    "./_base_/datasets/flickr30k.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

model = dict(
    vocabulary="data/flickr30k/vocabulary.txt",
    neck=dict(
        concepts="data/flickr30k/vit_b32/concepts.safetensors",
        clip_head="data/flickr30k/vit_b32/train_store/clip_head.safetensors",
    ),
)
