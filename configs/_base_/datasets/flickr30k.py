# Synthetic images for the captions of Flickr30k's training split (Karpathy), and its real images
# for validation and test; features of CLIP ViT-B/32.
_base_ = "./feature_store.py"

root = "data/flickr30k"
captions = f"{root}/dataset_flickr30k.json"
# SynthImgCap was made with "Stable Diffusion"; its version and settings are not published.
pipeline = "stable-diffusion-v1-5/stable-diffusion-v1-5"

# Files of captioners, which configs take by name.
files = dict(
    vocabulary=f"{root}/vocabulary.txt",
    concepts=f"{root}/vit_b32/concepts.safetensors",
    clip_head=f"{root}/vit_b32/train_store/clip_head.safetensors",
    refined_features=f"{root}/vit_b32/contrast/features.safetensors",
)

train_dataloader = dict(dataset=dict(store=f"{root}/vit_b32/train_store"))
val_dataloader = dict(dataset=dict(store=f"{root}/vit_b32/val_store", data_prefix=f"{root}/images"))
test_dataloader = dict(
    dataset=dict(store=f"{root}/vit_b32/test_store", data_prefix=f"{root}/images")
)
