# python tools/test.py configs/capdec_flickr30k2coco.py work_dirs/capdec_flickr30k/best*.pth
#
# CapDec cross-domain, Flickr30k to COCO: weights and vocabulary of Flickr30k, images and
# references of COCO. Its authors' captioner, as ViECap's repository reports it: 27.3 CIDEr.
_base_ = "./capdec/capdec_flickr30k.py"

test_dataloader = dict(
    dataset=dict(store="data/coco/vit_b32/test_store", data_prefix="data/coco/images")
)
extra_datasets = [dict(root="data/coco", captions="data/coco/dataset_coco.json")]
