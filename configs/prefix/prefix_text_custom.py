# ViECap (Fei et al. 2023), a prefix captioner with the pretrained GPT-2, on your own captions
# alone. With a text recipe, `pcm make-dataset` writes a config that inherits this one and sets
# paths, sizes and the warm-up: pcm train data/mine/config.py
_base_ = [
    "../_base_/models/viecap_vitb32.py",
    "../_base_/datasets/custom_text.py",
    "../_base_/schedules/adamw_15e.py",
    "../_base_/default_runtime.py",
]

concepts = f"{_base_.root}/corpus/concepts.safetensors"
# The threshold is ViECap's for a large set of entities (scripts/eval_flickr30k.sh).
model = dict(
    entity_prompt=dict(concepts=concepts, concept_threshold=0.3, caption_entities=concepts)
)
# As ViECap.
train_dataloader = dict(batch_size=80)
