# pcm train configs/prefix/prefix_text_coco.py
#
# ViECap's own setting (Fei et al. 2023) on COCO, on captions alone: noise on the CLIP feature of
# the caption, no image in training.
_base_ = "./prefix_coco.py"

train_dataloader = dict(dataset=dict(features="text"))
