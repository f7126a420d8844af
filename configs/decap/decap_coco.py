# python tools/train.py configs/decap/decap_coco.py
#
# DeCap (Li et al. 2023) on COCO, text-only: trained on the captions' CLIP features; at inference
# an image's feature is projected onto them. PCM-Net's encoder and decoder are behind it. The
# paper's own: 91.2 CIDEr.
_base_ = "../capdec/capdec_coco.py"

model = dict(
    neck=dict(
        noise_var=0.0,
        memory="data/coco/vit_b32/train_store",
    ),
    # As in DeCap's released code.
    loss=dict(label_smoothing=0.1),
)
