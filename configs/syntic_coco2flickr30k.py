# python tools/test.py configs/syntic_coco2flickr30k.py work_dirs/syntic_coco/best*.pth
#
# SynTIC, a reconstruction, cross-domain, COCO to Flickr30k: weights, vocabulary and memory of
# COCO, images and references of Flickr30k; objects are the concepts of Flickr30k's own config.
# SynTIC's paper: 38.4 CIDEr.
_base_ = "./syntic/syntic_coco.py"

model = dict(neck=dict(concepts="data/flickr30k/vit_b32/concepts.safetensors"))
test_dataloader = dict(
    dataset=dict(store="data/flickr30k/vit_b32/test_store", data_prefix="data/flickr30k/images")
)
extra_datasets = [dict(root="data/flickr30k", captions="data/flickr30k/dataset_flickr30k.json")]
