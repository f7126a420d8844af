# python tools/test.py configs/decap_nocaps.py work_dirs/decap_coco/best*.pth
#
# DeCap of COCO on NoCaps' 4,500 validation images (Agrawal et al. 2019): scores overall and by
# domain. Its authors' captioner, as ViECap's repository reports it: 45.9 CIDEr overall.
_base_ = "./decap/decap_coco.py"

test_dataloader = dict(
    dataset=dict(store="data/nocaps/vit_b32/val_store", data_prefix="data/nocaps/images")
)
test_evaluator = dict(groups="data/nocaps/nocaps_val_4500_captions.json")
# Its file knows no splits: all of it is validation.
extra_datasets = [
    dict(root="data/nocaps", captions="data/nocaps/nocaps_val_4500_captions.json", split="")
]
