# pcm train configs/prefix/prefix_coco.py
#
# ViECap (a prefix captioner with GPT-2, Fei et al. 2023) trained on the global CLIP features of
# synthetic images for COCO's captions. GPT-2 is taken from transformers' hub or its cache, or from
# a folder:
#   --cfg-options model.language_model=FOLDER
_base_ = [
    "../_base_/models/viecap_vitb32.py",
    "../_base_/datasets/coco_global.py",
    "../_base_/schedules/adamw_15e.py",
    "../_base_/default_runtime.py",
]

# ViECap's scripts/eval_coco.sh: COCO's 80 categories above 0.4.
entities = __import__("os").path.relpath("{{ fileDirname }}/../words/coco_categories.txt")
model = dict(
    entity_prompt=dict(
        concepts="data/coco/vit_b32/categories.safetensors",
        concept_threshold=0.4,
        caption_entities=_base_.files.concepts,
    ),
)
# As ViECap.
train_dataloader = dict(batch_size=80)
