# python tools/test.py configs/prefix_text_coco2flickr30k.py work_dirs/prefix_text_coco/best*.pth
#
# ViECap cross-domain, COCO to Flickr30k: weights of COCO, images and references of Flickr30k. The
# paper's own: 38.4 CIDEr.
_base_ = "./prefix/prefix_text_coco.py"

# As ViECap's README and scripts/eval_flickr30k.sh: VinVL's entities above 0.2, greedy search.
entities = "data/vinvl/vgcocooiobjects_v1_class2ind.json"
model = dict(
    concepts="data/vinvl/vit_b32/concepts.safetensors",
    concept_threshold=0.2,
    caption_entities=None,  # only training reads them
    decoding=dict(beam_size=1),
)
test_dataloader = dict(
    dataset=dict(store="data/flickr30k/vit_b32/test_store", data_prefix="data/flickr30k/images")
)
extra_datasets = [dict(root="data/flickr30k", captions="data/flickr30k/dataset_flickr30k.json")]
