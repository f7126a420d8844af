# python tools/train.py configs/prefix/prefix_coco.py
#
# ViECap (a prefix captioner with GPT-2, Fei et al. 2023) trained on the global CLIP features of
# COCO's synthetic images. PCM-Net's paper, Table 3, has ViECap so at 70.5 CIDEr on NoCaps.
# GPT-2 is taken from transformers' hub or its cache, or from a folder:
#   --cfg-options model.language_model=FOLDER
_base_ = [
    "../_base_/models/viecap_vitb32.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/adamw_15e.py",
    "../_base_/default_runtime.py",
]

# As scripts/eval_coco.sh of ViECap: COCO's 80 categories above 0.4.
entities = "configs/words/coco_categories.txt"
model = dict(
    concepts="data/coco/vit_b32/categories.safetensors",
    concept_threshold=0.4,
    caption_entities="data/coco/vit_b32/concepts.safetensors",
)
# 80 pairs as ViECap. The neck takes no patches.
train_dataloader = dict(batch_size=80, dataset=dict(features="global"))
val_dataloader = dict(dataset=dict(features="global"))
test_dataloader = dict(dataset=dict(features="global"))
