# pcm train configs/prefix/prefix_pcm_coco.py
#
# PCM in the form of ViECap on synthetic images for COCO's captions: the prefix consists of mixed
# patches, and pairs are weighted by CLIP.
_base_ = ["./prefix_coco.py", "../_base_/models/prefix_pcm.py"]

model = dict(
    neck=dict(
        **_base_.mixup_neck,
        patch_dim=768,
        clip_dim=512,
        embed_dims=768,
        num_patches=49,
        concepts=_base_.files.concepts,
        clip_head=_base_.files.clip_head,
    ),
    loss=_base_.mixup_loss,
)
train_dataloader = val_dataloader = test_dataloader = _base_.patch_loader
