# python tools/train.py configs/prefix/prefix_text_coco.py
#
# ViECap's own setting (Fei et al. 2023) on COCO, text-only: noise on the caption's own CLIP
# feature, no image in training. The paper's own: 92.9 CIDEr in-domain, 66.2 on NoCaps.
_base_ = "./prefix_coco.py"

train_dataloader = dict(dataset=dict(features="text"))
