# python tools/test.py configs/prefix_nocaps.py work_dirs/prefix_coco/best*.pth
#
# The prefix captioner trained on COCO's synthetic images, on NoCaps' 4,500 validation images,
# overall and by domain. PCM-Net's paper, Table 3: 70.5 CIDEr overall.
_base_ = "./prefix/prefix_coco.py"

# As scripts/eval_nocaps.sh of ViECap: VinVL's entities above 0.2.
entities = "data/vinvl/vgcocooiobjects_v1_class2ind.json"
model = dict(
    concepts="data/vinvl/vit_b32/concepts.safetensors",
    concept_threshold=0.2,
    caption_entities=None,  # only training reads them
)
test_dataloader = dict(
    dataset=dict(store="data/nocaps/vit_b32/val_store", data_prefix="data/nocaps/images")
)
test_evaluator = dict(groups="data/nocaps/nocaps_val_4500_captions.json")
# Its file knows no splits: all of it is validation.
extra_datasets = [
    dict(root="data/nocaps", captions="data/nocaps/nocaps_val_4500_captions.json", split="")
]
