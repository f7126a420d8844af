# python tools/test.py configs/capdec_nocaps.py work_dirs/capdec_coco/best*.pth
#
# CapDec of COCO on NoCaps' 4,500 validation images (Agrawal et al. 2019): scores overall and by
# domain. Its authors' captioner, as ViECap's repository reports it: 45.9 CIDEr overall.
_base_ = "./capdec/capdec_coco.py"

test_dataloader = dict(
    dataset=dict(store="data/nocaps/vit_b32/val_store", data_prefix="data/nocaps/images")
)
test_evaluator = dict(groups="data/nocaps/nocaps_val_4500_captions.json")
# Its file knows no splits: all of it is validation.
extra_datasets = [
    dict(root="data/nocaps", captions="data/nocaps/nocaps_val_4500_captions.json", split="")
]
