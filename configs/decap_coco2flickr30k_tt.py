# python tools/test.py configs/decap_coco2flickr30k_tt.py work_dirs/decap_coco/best*.pth
#
# DeCap cross-domain with target texts, COCO to Flickr30k: weights and vocabulary of COCO; an
# image's feature is projected onto the training captions of Flickr30k. Of the store that holds
# these, nothing else is read. Figures of this setting stand apart from those without target texts.
_base_ = "./decap_coco.py"

model = dict(neck=dict(memory="data/flickr30k/vit_b32/train_store"))
test_dataloader = dict(
    dataset=dict(store="data/flickr30k/vit_b32/test_store", image_root="data/flickr30k/images")
)
other_data = [dict(root="data/flickr30k", captions="data/flickr30k/dataset_flickr30k.json")]
