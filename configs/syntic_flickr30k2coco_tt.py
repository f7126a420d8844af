# python tools/test.py configs/syntic_flickr30k2coco_tt.py work_dirs/syntic_flickr30k/best*.pth
#
# SynTIC, a reconstruction, cross-domain with target texts, Flickr30k to COCO: as
# syntic_flickr30k2coco.py, but images are projected onto the training captions of COCO. Of the
# store that holds these, nothing else is read. Figures of this setting stand apart.
_base_ = "./syntic_flickr30k2coco.py"

model = dict(neck=dict(memory="data/coco/vit_b32/train_store"))
