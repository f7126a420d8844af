# python tools/test.py configs/prefix_text_flickr30k2coco.py work_dirs/prefix_text_flickr30k/best*
#
# ViECap cross-domain, Flickr30k to COCO: weights of Flickr30k, images and references of COCO. The
# paper's own: 54.2 CIDEr.
_base_ = "./prefix/prefix_text_flickr30k.py"

# As ViECap's README and scripts/eval_coco.sh: COCO's 80 categories above 0.2, greedy search.
entities = "configs/words/coco_categories.txt"
model = dict(
    concepts="data/coco/vit_b32/categories.safetensors",
    concept_threshold=0.2,
    caption_entities=None,  # only training reads them
)
test_dataloader = dict(
    dataset=dict(store="data/coco/vit_b32/test_store", data_prefix="data/coco/images")
)
extra_datasets = [dict(root="data/coco", captions="data/coco/dataset_coco.json")]
