# python tools/test.py configs/decap_flickr30k2coco.py work_dirs/decap_flickr30k/best*.pth
#
# DeCap cross-domain, Flickr30k to COCO: weights, vocabulary and memory of Flickr30k, images and
# references of COCO. Its authors' captioner, as ViECap's repository reports it: 44.4 CIDEr.
_base_ = "./decap/decap_flickr30k.py"

test_dataloader = dict(
    dataset=dict(store="data/coco/vit_b32/test_store", data_prefix="data/coco/images")
)
extra_datasets = [dict(root="data/coco", captions="data/coco/dataset_coco.json")]
