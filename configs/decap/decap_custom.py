# DeCap on your own captions alone, which are the memory as well. With a text recipe, `pcm
# make-dataset` writes a config that inherits this one and sets paths, sizes and the warm-up:
# pcm train data/mine/decap.py
_base_ = [
    "../_base_/models/decap_vitb32.py",
    "../_base_/datasets/custom_text.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    vocabulary=f"{_base_.root}/corpus/vocabulary.txt",
    neck=dict(text_memory=f"{_base_.root}/train_store"),
)
