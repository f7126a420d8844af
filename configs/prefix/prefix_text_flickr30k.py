# pcm train configs/prefix/prefix_text_flickr30k.py
#
# ViECap's own setting (Fei et al. 2023) on Flickr30k, on captions alone: noise on the CLIP feature
# of the caption, no image in training.
_base_ = [
    "../_base_/models/viecap_vitb32.py",
    "../_base_/datasets/flickr30k_text.py",
    "../_base_/schedules/adamw_15e.py",
    "../_base_/default_runtime.py",
]

# ViECap's scripts/eval_flickr30k.sh: VinVL's entities above 0.3, greedy search.
entities = "data/vinvl/vgcocooiobjects_v1_class2ind.json"
model = dict(
    entity_prompt=dict(
        concepts="data/vinvl/vit_b32/concepts.safetensors",
        concept_threshold=0.3,
        caption_entities=_base_.files.concepts,
    ),
    decoding=dict(beam_size=1),
)
# ViECap's scripts/train_flickr30k.sh: twice the epochs of COCO.
train_cfg = dict(max_epochs=30)
# As ViECap.
train_dataloader = dict(batch_size=80)
