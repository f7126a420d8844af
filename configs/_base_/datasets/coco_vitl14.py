# coco.py with features of CLIP ViT-L/14.
_base_ = "./coco.py"

files = dict(
    concepts="data/coco/vit_l14/concepts.safetensors",
    clip_head="data/coco/vit_l14/train_store/clip_head.safetensors",
)
train_dataloader = dict(dataset=dict(store="data/coco/vit_l14/train_store"))
val_dataloader = dict(dataset=dict(store="data/coco/vit_l14/val_store"))
test_dataloader = dict(dataset=dict(store="data/coco/vit_l14/test_store"))
