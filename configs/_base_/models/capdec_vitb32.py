# CapDec (Nukrai et al. 2022): noise on the CLIP feature of the caption, no image in training. The
# encoder and decoder are those of PCM-Net.
_base_ = "./pcm_vitb32.py"

model = dict(
    neck=dict(_delete_=True, type="pcm_plugin.GlobalPrefix", clip_dim=512, embed_dims=512),
    # Plain cross entropy, as in CapDec's released code. A caption always matches itself, so there
    # is nothing to weight.
    loss=dict(use_clip_weight=False, gamma_type="none", label_smoothing=0.0),
)
