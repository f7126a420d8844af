# A prefix captioner with a small GPT-2, which starts from random weights, on your own captions
# alone; it trains on a CPU. With a text recipe that sets `language_model`, `pcm make-dataset`
# writes a config that inherits this one and sets paths, sizes and the warm-up:
# pcm train data/mine/config.py
_base_ = [
    "../_base_/models/prefix_vitb32.py",
    "../_base_/datasets/custom_text.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

# As prefix_text_toy.py.
model = dict(
    neck=dict(embed_dims=128),
    mapper=dict(embed_dims=128, num_layers=2, num_heads=4),
    language_model=f"{_base_.root}/corpus/language_model",
    pretrained=False,
    entity_prompt=dict(concepts=f"{_base_.root}/corpus/concepts.safetensors"),
    decoding=dict(beam_size=3),
)
param_scheduler = dict(embed_dims=128)
