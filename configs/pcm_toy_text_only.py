# python tools/train.py configs/pcm_toy_text_only.py
#
# Text-only training in the toy world: CapDec's noise on the caption's own CLIP feature, no image
# in training; the same captioner behind it.
_base_ = "./pcm_toy.py"

model = dict(
    neck=dict(_delete_=True, type="pcm_plugin.GlobalPrefix", clip_dim=128, embed_dims=128),
    # A caption and itself always agree: there is nothing to weight.
    loss=dict(use_clip_weight=False),
)
train_dataloader = dict(dataset=dict(features="caption"))

prerequisites = [
    dict(key=key, command="make demo")
    for key in (
        "model.vocabulary",
        "train_dataloader.dataset.store",
        "val_dataloader.dataset.store",
        "test_dataloader.dataset.store",
    )
]
