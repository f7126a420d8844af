# python tools/train.py configs/prefix/prefix_text_toy.py
#
# ViECap's own setting (Fei et al. 2023) in the toy world, text-only: noise on the caption's own
# CLIP feature, no image in training.
_base_ = "./prefix_toy.py"

train_dataloader = dict(dataset=dict(features="text"))
