# CapDec on your own captions alone. With a text recipe, `pcm make-dataset` writes a config that
# inherits this one and sets paths, sizes and the warm-up: pcm train data/mine/capdec.py
_base_ = [
    "../_base_/models/capdec_vitb32.py",
    "../_base_/datasets/custom_text.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(vocabulary=f"{_base_.root}/corpus/vocabulary.txt")
