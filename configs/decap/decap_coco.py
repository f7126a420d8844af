# pcm train configs/decap/decap_coco.py
#
# DeCap on COCO, on captions alone. They are the memory as well.
_base_ = [
    "../_base_/models/decap_vitb32.py",
    "../_base_/datasets/coco_text.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=dict(text_memory=_base_.train_dataloader.dataset.store),
)
