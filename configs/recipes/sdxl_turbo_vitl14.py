# pcm make-dataset CAPTIONS --recipe sdxl_turbo_vitl14 --out data/mine
#
# SDXL-Turbo with one step and without guidance, for which it was distilled; CLIP ViT-L/14.
_base_ = "./sd15_vitl14.py"

generate = dict(
    pipeline="stabilityai/sdxl-turbo", scheduler=None, steps=1, guidance=0.0, batch_size=8
)
