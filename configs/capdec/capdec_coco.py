# pcm train configs/capdec/capdec_coco.py
#
# CapDec on COCO, on captions alone.
_base_ = [
    "../_base_/models/capdec_vitb32.py",
    "../_base_/datasets/coco_text.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(vocabulary=_base_.files.vocabulary)
