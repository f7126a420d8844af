# pcm train configs/decap/decap_flickr30k.py
#
# DeCap on Flickr30k, on captions alone. They are the memory as well.
_base_ = [
    "../_base_/models/decap_vitb32.py",
    "../_base_/datasets/flickr30k_text.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=dict(text_memory=_base_.train_dataloader.dataset.store),
)
