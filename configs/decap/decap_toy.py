# pcm train configs/decap/decap_toy.py
#
# DeCap in the toy world, on captions alone. They are the memory as well.
_base_ = [
    "../_base_/models/decap_vitb32.py",
    "../_base_/models/toy.py",
    "../_base_/datasets/toy_text.py",
    "../_base_/schedules/noam_toy.py",
    "../_base_/toy_runtime.py",
]

clip = _base_.toy.clip
model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=dict(
        **_base_.toy.widths,
        text_memory=_base_.train_dataloader.dataset.store,
    ),
    encoder=_base_.toy.layers,
    decoder=_base_.toy.layers,
)
