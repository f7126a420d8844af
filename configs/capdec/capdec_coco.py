# python tools/train.py configs/capdec/capdec_coco.py
#
# CapDec on COCO, on captions alone.
_base_ = [
    "../_base_/models/capdec_vitb32.py",
    "../_base_/datasets/coco.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(vocabulary=_base_.files.vocabulary)
# The neck takes no patches.
train_dataloader = dict(dataset=dict(features="text"))
val_dataloader = test_dataloader = dict(dataset=dict(features="global"))
