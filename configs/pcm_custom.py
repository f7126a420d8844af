# PCM-Net on your own captions. `pcm make-dataset` writes a config that inherits this one and
# sets paths, sizes and the warm-up: pcm train data/mine/config.py
#
# The hyper-parameters are the released ones, except for those that the recipe sets.
_base_ = [
    "./_base_/models/pcm_vitb32.py",
    "./_base_/datasets/feature_store.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

root = "data/custom"
model = dict(
    vocabulary=f"{root}/corpus/vocabulary.txt",
    neck=dict(
        concepts=f"{root}/corpus/concepts.safetensors",
        clip_head=f"{root}/train_store/clip_head.safetensors",
    ),
)
train_dataloader = dict(dataset=dict(store=f"{root}/train_store"))
val_dataloader = dict(dataset=dict(store=f"{root}/val_store"))
test_dataloader = dict(dataset=dict(store=f"{root}/test_store"))

build_commands = "make_dataset"
