# python tools/train.py configs/prefix/prefix_text_flickr30k.py
#
# ViECap's own setting (Fei et al. 2023) on Flickr30k, text-only: noise on the caption's own CLIP
# feature, no image in training. The paper's own: 47.9 CIDEr.
_base_ = [
    "../_base_/models/viecap_vitb32.py",
    "../_base_/datasets/flickr30k.py",
    "../_base_/schedules/adamw_15e.py",
    "../_base_/default_runtime.py",
]

# As scripts/eval_flickr30k.sh of ViECap: VinVL's entities above 0.3, greedy search.
entities = "data/vinvl/vgcocooiobjects_v1_class2ind.json"
model = dict(
    concepts="data/vinvl/vit_b32/concepts.safetensors",
    concept_threshold=0.3,
    caption_entities="data/flickr30k/vit_b32/concepts.safetensors",
    decoding=dict(beam_size=1),
)
# As scripts/train_flickr30k.sh: twice the epochs of COCO.
train_cfg = dict(max_epochs=30)
# 80 pairs as ViECap. The neck takes no patches.
train_dataloader = dict(batch_size=80, dataset=dict(features="text"))
val_dataloader = dict(dataset=dict(features="global"))
test_dataloader = dict(dataset=dict(features="global"))
