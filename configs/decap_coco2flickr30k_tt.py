# python tools/test.py configs/decap_coco2flickr30k_tt.py work_dirs/decap_coco/best*.pth
#
# DeCap cross-domain with target texts, COCO to Flickr30k: weights and vocabulary of COCO; an
# image's feature is projected onto the training captions of Flickr30k. Of the store that holds
# these, nothing else is read. Figures of this setting stand apart from those without target texts.
_base_ = "./decap_coco2flickr30k.py"

model = dict(neck=dict(memory="data/flickr30k/vit_b32/train_store"))
