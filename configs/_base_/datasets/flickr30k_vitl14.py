# flickr30k.py with features of CLIP ViT-L/14.
_base_ = "./flickr30k.py"

files = dict(
    concepts="data/flickr30k/vit_l14/concepts.safetensors",
    clip_head="data/flickr30k/vit_l14/train_store/clip_head.safetensors",
)
train_dataloader = dict(dataset=dict(store="data/flickr30k/vit_l14/train_store"))
val_dataloader = dict(dataset=dict(store="data/flickr30k/vit_l14/val_store"))
test_dataloader = dict(dataset=dict(store="data/flickr30k/vit_l14/test_store"))
