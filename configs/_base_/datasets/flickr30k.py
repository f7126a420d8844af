# Synthetic images for the captions of Flickr30k's Karpathy training split, CLIP ViT-B/32 features.
_base_ = "./feature_store.py"

root = "data/flickr30k"
# Karpathy's splits.
captions = "data/flickr30k/dataset_flickr30k.json"
# SynthImgCap was made with "Stable Diffusion"; its version and settings are published nowhere.
pipeline = "stable-diffusion-v1-5/stable-diffusion-v1-5"

train_dataloader = dict(dataset=dict(store="data/flickr30k/vit_b32/train_store"))
val_dataloader = dict(
    dataset=dict(store="data/flickr30k/vit_b32/val_store", data_prefix="data/flickr30k/images")
)
test_dataloader = dict(
    dataset=dict(store="data/flickr30k/vit_b32/test_store", data_prefix="data/flickr30k/images")
)
