# DeCap (Li et al. 2023): no noise in training; at inference the feature of an image is projected
# onto a memory of captions' features. The encoder and decoder are those of PCM-Net.
_base_ = "./capdec_vitb32.py"

model = dict(
    neck=dict(noise_var=0.0),
    # As in DeCap's released code.
    loss=dict(label_smoothing=0.1),
)
