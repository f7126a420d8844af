# python tools/train.py configs/prefix/prefix_toy.py
#
# A prefix captioner (ViECap's form, Fei et al. 2023) in the toy world, trained on the global CLIP
# features of synthetic images. There is no pretrained language model of that world: a small GPT-2
# begins with random weights.
_base_ = [
    "../_base_/models/prefix_vitb32.py",
    "../_base_/datasets/toy.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

clip = dict(model="local-dir:pcm_plugin/toyworld/assets/clip", pretrained=None)

model = dict(
    neck=dict(clip_dim=128, embed_dims=128),
    mapper=dict(embed_dims=128, num_layers=2, num_heads=4),
    language_model="data/toy/town/gpt2",
    pretrained=False,
    concepts="data/toy/town/concepts.safetensors",
    # As pcm_toy.py has it.
    temperature=0.03,
    loss=dict(clip_weight=1.3),
    decoding=dict(beam_size=3),
)

# Some 1,500 iterations in all, as PCM-Net's.
train_cfg = dict(max_epochs=16, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=0.5))
param_scheduler = dict(embed_dims=128, warmup=300)
default_hooks = dict(logger=dict(interval=20))
# The neck takes no patches.
train_dataloader = dict(dataset=dict(features="global"))
val_dataloader = dict(dataset=dict(features="global"))
test_dataloader = dict(dataset=dict(features="global"))
