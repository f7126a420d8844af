# pcm train configs/syntic/syntic_flickr30k.py
#
# SynTIC on Flickr30k, a reconstruction; the schedule is that of PCM-Net.
_base_ = [
    "../_base_/models/syntic_vitb32.py",
    "../_base_/datasets/flickr30k_global.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=dict(concepts=_base_.files.concepts, text_memory=_base_.train_dataloader.dataset.store),
)
train_dataloader = dict(dataset=dict(refined_features=_base_.files.refined_features))
