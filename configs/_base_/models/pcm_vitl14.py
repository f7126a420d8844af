# PCM-Net with the released hyper-parameters for CLIP ViT-L/14: 16 x 16 patches, averaged 2 x 2, and
# w = 4 as in the paper.
_base_ = "./pcm_vitb32.py"

clip = dict(model_name="ViT-L-14-quickgelu", pool=2)

model = dict(
    neck=dict(patch_dim=1024, clip_dim=768, num_patches=64),
    loss=dict(clip_weight=4.0),
)
