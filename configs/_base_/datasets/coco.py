# Synthetic images for the captions of COCO's Karpathy training split, CLIP ViT-B/32 features.
_base_ = "./feature_store.py"

train_dataloader = dict(dataset=dict(store="data/coco/vit_b32/train_store"))
val_dataloader = dict(dataset=dict(store="data/coco/vit_b32/val_store"))
test_dataloader = dict(dataset=dict(store="data/coco/vit_b32/test_store"))
