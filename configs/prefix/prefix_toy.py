# pcm train configs/prefix/prefix_toy.py
#
# A prefix captioner (the form of ViECap, Fei et al. 2023) in the toy world, trained on the global
# CLIP features of synthetic images. There is no pretrained language model of that world: a small
# GPT-2 starts from random weights.
_base_ = [
    "../_base_/models/prefix_vitb32.py",
    "../_base_/models/toy.py",
    "../_base_/datasets/toy_global.py",
    "../_base_/schedules/noam_toy.py",
    "../_base_/toy_runtime.py",
]

clip = _base_.toy.clip
model = dict(
    neck=_base_.toy.widths,
    mapper=dict(embed_dims=128, num_layers=2, num_heads=4),
    language_model=_base_.files.language_model,
    pretrained=False,
    entity_prompt=dict(concepts=_base_.files.concepts),
    decoding=dict(beam_size=3),
)
