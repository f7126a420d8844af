# python tools/train.py configs/pcm_flickr30k_vitl14.py
#
# PCM-Net on Flickr30k, CLIP ViT-L/14: the released hyper-parameters, in-domain CIDEr 69.5 in the
# paper.
_base_ = [
    "./_base_/models/pcm_vitl14.py",
    "./_base_/datasets/flickr30k.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

model = dict(
    vocabulary="data/flickr30k/vocabulary.txt",
    neck=dict(
        concepts="data/flickr30k/vit_l14/concepts.safetensors",
        clip_head="data/flickr30k/vit_l14/train_store/clip_head.safetensors",
    ),
)
train_dataloader = dict(dataset=dict(store="data/flickr30k/vit_l14/train_store"))
val_dataloader = dict(dataset=dict(store="data/flickr30k/vit_l14/val_store"))
test_dataloader = dict(dataset=dict(store="data/flickr30k/vit_l14/test_store"))
