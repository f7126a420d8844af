# python tools/test.py configs/pcm_nocaps.py work_dirs/pcm_coco/best*.pth
#
# COCO's weights, vocabulary and concepts on NoCaps' 4,500 validation images (Agrawal et al. 2019),
# CLIP ViT-B/32: scores overall and by domain (648 images in-, 2,938 near-, 914 out-of-domain). The
# paper has no figure of PCM-Net by itself here.
_base_ = "./pcm_coco.py"

test_dataloader = dict(
    dataset=dict(store="data/nocaps/vit_b32/val_store", data_prefix="data/nocaps/images")
)
test_evaluator = dict(groups="data/nocaps/nocaps_val_4500_captions.json")
# Its file knows no splits: all of it is validation.
extra_datasets = [
    dict(root="data/nocaps", captions="data/nocaps/nocaps_val_4500_captions.json", split="")
]
