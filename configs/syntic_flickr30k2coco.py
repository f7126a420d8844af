# python tools/test.py configs/syntic_flickr30k2coco.py work_dirs/syntic_flickr30k/best*.pth
#
# SynTIC, a reconstruction, cross-domain, Flickr30k to COCO: weights, vocabulary and memory of
# Flickr30k, images and references of COCO; objects are the concepts of COCO's own config.
# SynTIC's paper: 47.0 CIDEr.
_base_ = "./syntic/syntic_flickr30k.py"

model = dict(neck=dict(concepts="data/coco/vit_b32/concepts.safetensors"))
test_dataloader = dict(
    dataset=dict(store="data/coco/vit_b32/test_store", data_prefix="data/coco/images")
)
extra_datasets = [dict(root="data/coco", captions="data/coco/dataset_coco.json")]
