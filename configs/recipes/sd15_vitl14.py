# pcm make-dataset CAPTIONS --recipe sd15_vitl14 --out data/mine
#
# Stable Diffusion 1.5 and OpenAI's CLIP ViT-L/14, its 16x16 patches averaged 2x2, as released.
_base_ = "./sd15_vitb32.py"

extract = dict(model="ViT-L-14-quickgelu", pool=2, batch_size=128)
model = dict(
    encoder=dict(dropout=0.25),
    decoder=dict(dropout=0.25),
    loss=dict(clip_weight=4.0),
)
