# pcm train configs/prefix/prefix_pcm_toy.py
#
# prefix_pcm_coco.py in the toy world: the prefix consists of mixed patches, and pairs are weighted
# by CLIP.
_base_ = ["./prefix_toy.py", "../_base_/models/prefix_pcm.py"]

model = dict(
    neck=dict(
        **_base_.mixup_neck,
        **_base_.toy.widths,
        patch_dim=_base_.toy.patch_dim,
        concepts=_base_.files.concepts,
        clip_head=_base_.files.clip_head,
    ),
    loss=_base_.mixup_loss,
)
train_dataloader = val_dataloader = test_dataloader = _base_.patch_loader
