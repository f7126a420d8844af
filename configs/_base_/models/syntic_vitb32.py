# SynTIC (Liu et al., AAAI 2024, arXiv 2312.08865), a reconstruction: no code, loss or settings are
# public. The docstrings of SynTIC, ObjectPrefix and refine_by_contrast name the choices that are
# ours.
_base_ = "./pcm_vitb32.py"

model = dict(
    type="pcm_plugin.SynTIC",
    neck=dict(
        _delete_=True,
        type="pcm_plugin.ObjectPrefix",
        clip_dim=512,
        embed_dims=512,
    ),
    encoder=None,
    # The paper's layers and heads; widths and dropouts are those of PCM-Net.
    decoder=dict(num_layers=4, num_heads=4),
    # Ours: the released loss of PCM-Net without CLIP weights, which has label smoothing of 0.1 and
    # no factor (1 - p)^2. Refinement has moved each image to its caption, so there is little to
    # weight.
    loss=dict(use_clip_weight=False, gamma_type="none"),
)
