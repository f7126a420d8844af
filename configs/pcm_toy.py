# python tools/train.py configs/pcm_toy.py
#
# PCM-Net in the toy world, as `make demo` trains it: COCO's configuration but for sizes, paths,
# schedule, and what goes by its CLIP and by the size of its things. Arms of docs/results.md:
#   base            --cfg-options model.neck.mix=none model.loss.use_clip_weight=False
#                       model.loss.gamma_type=none
#   + mix-up        --cfg-options model.loss.use_clip_weight=False model.loss.gamma_type=none
#   + CLIP weights  --cfg-options model.neck.mix=none
#   text-only       configs/capdec/capdec_toy.py
# The released unweighted loss has no (1 - p)^2 factor: hence gamma_type=none.
_base_ = [
    "./_base_/models/pcm_vitb32.py",
    "./_base_/datasets/toy.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

clip = dict(model="local-dir:pcm_plugin/toyworld/assets/clip", pretrained=None)

model = dict(
    vocabulary="data/toy/town/vocabulary.txt",
    neck=dict(
        patch_dim=128,
        clip_dim=128,
        embed_dims=128,
        concepts="data/toy/town/concepts.safetensors",
        clip_head="data/toy/town/train_store/clip_head.safetensors",
        # A thing covers 3 patches of 49, the largest of a picture 4: 5 would hide it altogether.
        top_patches=2,
        # That of the CLIP itself, as 0.01 is of OpenAI's: one over its logit scale, 34.6.
        temperature=0.03,
    ),
    # Its cosines of pictures with their captions are near 0.57: 2.5 would put almost every pair's
    # weight at the ceiling of 1.
    loss=dict(clip_weight=1.3),
    encoder=dict(embed_dims=128, num_layers=2, num_heads=4, ffn_dims=512),
    decoder=dict(embed_dims=128, num_layers=2, num_heads=4, ffn_dims=512),
)

# Some 1,500 iterations in all: a short warm-up, and a multiplier that keeps its peak near 2.5e-3.
train_cfg = dict(max_epochs=16, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=0.5))
param_scheduler = dict(embed_dims=128, warmup=300)
default_hooks = dict(logger=dict(interval=20))
