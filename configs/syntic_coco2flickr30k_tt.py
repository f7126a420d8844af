# python tools/test.py configs/syntic_coco2flickr30k_tt.py work_dirs/syntic_coco/best*.pth
#
# SynTIC, a reconstruction, cross-domain with target texts, COCO to Flickr30k: as
# syntic_coco2flickr30k.py, but images are projected onto the training captions of Flickr30k. Of the
# store that holds these, nothing else is read. Figures of this setting stand apart.
_base_ = "./syntic_coco2flickr30k.py"

model = dict(neck=dict(memory="data/flickr30k/vit_b32/train_store"))
