# python tools/train.py configs/capdec/capdec_flickr30k.py
#
# CapDec (Nukrai et al. 2022) on Flickr30k, text-only: noise on the caption's own CLIP feature, no
# image in training; PCM-Net's encoder and decoder behind it. The paper's own, on RN50x4: 39.1
# CIDEr.
_base_ = "../pcm_flickr30k.py"

model = dict(
    neck=dict(_delete_=True, type="pcm_plugin.GlobalPrefix", clip_dim=512),
    # Plain cross entropy, as in CapDec's released code. A caption always agrees with itself: there
    # is nothing to weight.
    loss=dict(use_clip_weight=False, gamma_type="none", label_smoothing=0.0),
)
train_dataloader = dict(dataset=dict(features="text"))
# The neck takes no patches.
val_dataloader = dict(dataset=dict(features="global"))
test_dataloader = dict(dataset=dict(features="global"))
