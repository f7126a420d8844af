# python tools/train.py configs/decap/decap_toy.py
#
# DeCap (Li et al. 2023) in the toy world, text-only: trained on the captions' CLIP features; at
# inference an image's feature is projected onto them. PCM-Net's encoder and decoder are behind it.
_base_ = "../capdec/capdec_toy.py"

model = dict(
    neck=dict(
        noise_var=0.0,
        memory="data/toy/town/train_store",
        # That of this CLIP, as 0.01 is of OpenAI's: one over its logit scale, 34.6.
        memory_temperature=0.03,
    ),
    # As in DeCap's released code.
    loss=dict(label_smoothing=0.1),
)
