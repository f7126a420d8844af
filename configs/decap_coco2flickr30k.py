# python tools/test.py configs/decap_coco2flickr30k.py work_dirs/decap_coco/best*.pth
#
# DeCap cross-domain, COCO to Flickr30k: weights, vocabulary and memory of COCO, images and
# references of Flickr30k. Its authors' captioner, as ViECap's repository reports it: 35.7 CIDEr.
_base_ = "./decap/decap_coco.py"

test_dataloader = dict(
    dataset=dict(store="data/flickr30k/vit_b32/test_store", data_prefix="data/flickr30k/images")
)
extra_datasets = [dict(root="data/flickr30k", captions="data/flickr30k/dataset_flickr30k.json")]
