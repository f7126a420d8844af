# python tools/test.py configs/decap_flickr30k2coco_tt.py work_dirs/decap_flickr30k/best*.pth
#
# DeCap cross-domain with target texts, Flickr30k to COCO: weights and vocabulary of Flickr30k; an
# image's feature is projected onto the training captions of COCO. Of the store that holds these,
# nothing else is read. Figures of this setting stand apart from those without target texts.
_base_ = "./decap_flickr30k2coco.py"

model = dict(neck=dict(memory="data/coco/vit_b32/train_store"))
