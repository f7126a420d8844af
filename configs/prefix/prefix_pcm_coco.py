# python tools/train.py configs/prefix/prefix_pcm_coco.py
#
# PCM in ViECap's form on COCO's synthetic images: the prefix is made of mixed patches, and pairs
# are weighted by CLIP. PCM-Net's paper, Table 3: 74.7 CIDEr on NoCaps.
_base_ = "./prefix_coco.py"

model = dict(
    neck=dict(
        _delete_=True,
        type="pcm_plugin.PCMMixup",
        patch_dim=768,
        clip_dim=512,
        embed_dims=768,
        num_patches=49,
        noise_var=0.016,
        dropout=0.1,
        concepts="data/coco/vit_b32/concepts.safetensors",
        clip_head="data/coco/vit_b32/train_store/clip_head.safetensors",
    ),
    loss=dict(use_clip_weight=True),
)
train_dataloader = dict(dataset=dict(features="patch"))
val_dataloader = dict(dataset=dict(features="patch"))
test_dataloader = dict(dataset=dict(features="patch"))
