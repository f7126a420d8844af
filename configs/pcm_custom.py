# PCM_DATA=data/mine python tools/train.py configs/pcm_custom.py
#
# PCM-Net on a folder that tools/make_dataset.py made, by default data/custom: the released
# hyper-parameters but for what the recipe says and a warm-up that fits the number of pairs.
_base_ = [
    "./_base_/models/pcm_vitb32.py",
    "./_base_/datasets/feature_store.py",
    "./_base_/schedules/noam_12e.py",
    "./_base_/default_runtime.py",
]

import json
import os

root = os.environ.get("PCM_DATA", "data/custom")
made = f"{root}/dataset.json"
# Before the folder is made the config can be read all the same, to say what is missing.
facts = dict(model={}, clip={}, pairs=542_401, refined=False, real=[])
if os.path.isfile(made):
    with open(made) as file:
        facts = json.load(file)
    del file

clip = facts["clip"]
model = dict(
    vocabulary=f"{root}/corpus/vocabulary.txt",
    **{key: part for key, part in facts["model"].items() if key != "neck"},
    neck={
        "concepts": f"{root}/corpus/concepts.safetensors",
        "clip_head": f"{root}/train_store/clip_head.safetensors",
        # Features of a CLIP without a linear head say so here.
        **facts["model"].get("neck", {}),
    },
)
train_dataloader = dict(
    # Of a small corpus, the pairs that do not fill a batch are a good part of an epoch.
    drop_last=facts["pairs"] >= 10 * _base_.train_dataloader.batch_size,
    dataset=dict(
        store=f"{root}/train_store",
        pairs=f"{root}/pairs/pairs.safetensors" if facts["refined"] else None,
    ),
)
# Without real images there is no validation, and the last checkpoint is the one to take.
if "val" in facts["real"]:
    val_dataloader = dict(dataset=dict(store=f"{root}/val_store"))
else:
    val_dataloader = val_cfg = val_evaluator = None
if "test" in facts["real"]:
    test_dataloader = dict(dataset=dict(store=f"{root}/test_store"))
else:
    test_dataloader = test_cfg = test_evaluator = None

# As on COCO a twentieth of all iterations, at COCO's peak rate.
warmup = max(100, min(10_000, facts["pairs"] * 12 // 32 // 20))
param_scheduler = dict(
    warmup=warmup, embed_dims=facts["model"].get("neck", {}).get("embed_dims", 512)
)
optim_wrapper = dict(optimizer=dict(lr=(warmup / 10_000) ** 0.5))

_command = "python tools/make_dataset.py CAPTIONS --recipe RECIPE --out {root}"
# What dataset.json says of the features, they say themselves.
required_files = [dict(key="made", command=_command, in_fingerprint=False)]
# Optional: other captioners have other files.
required_files += [
    dict(key=f"model.{key}", command=_command, optional=True)
    for key in ("vocabulary", "concepts", "neck.concepts", "neck.clip_head", "neck.memory")
]
required_files += [
    dict(key=f"train_dataloader.dataset.{key}", command=_command) for key in ("store", "pairs")
]
required_files += [
    dict(
        key=f"{split}_dataloader.dataset.store",
        command=_command + f" --{split} IMAGES CAPTIONS",
    )
    for split in ("val", "test")
]
