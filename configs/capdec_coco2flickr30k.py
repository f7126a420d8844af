# python tools/test.py configs/capdec_coco2flickr30k.py work_dirs/capdec_coco/best*.pth
#
# CapDec cross-domain, COCO to Flickr30k: weights and vocabulary of COCO, images and
# references of Flickr30k. Its authors' captioner, as ViECap's repository reports it: 35.7 CIDEr.
_base_ = "./capdec/capdec_coco.py"

test_dataloader = dict(
    dataset=dict(store="data/flickr30k/vit_b32/test_store", data_prefix="data/flickr30k/images")
)
extra_datasets = [dict(root="data/flickr30k", captions="data/flickr30k/dataset_flickr30k.json")]
