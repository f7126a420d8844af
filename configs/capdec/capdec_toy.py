# pcm train configs/capdec/capdec_toy.py
#
# CapDec in the toy world, on captions alone.
_base_ = [
    "../_base_/models/capdec_vitb32.py",
    "../_base_/models/toy.py",
    "../_base_/datasets/toy_text.py",
    "../_base_/schedules/noam_toy.py",
    "../_base_/toy_runtime.py",
]

clip = _base_.toy.clip
model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=_base_.toy.widths,
    encoder=_base_.toy.layers,
    decoder=_base_.toy.layers,
)
