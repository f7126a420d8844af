# pcm train configs/syntic/syntic_toy.py
#
# SynTIC in the toy world, a reconstruction; the schedule is that of PCM-Net. With the synthetic
# features before refinement:
#   --cfg-options train_dataloader.dataset.refined_features=None
_base_ = [
    "../_base_/models/syntic_vitb32.py",
    "../_base_/models/toy.py",
    "../_base_/datasets/toy_global.py",
    "../_base_/schedules/noam_toy.py",
    "../_base_/toy_runtime.py",
]

clip = _base_.toy.clip
model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=dict(
        **_base_.toy.widths,
        concepts=_base_.files.concepts,
        text_memory=_base_.train_dataloader.dataset.store,
    ),
    # The paper's layers and heads.
    decoder={**_base_.toy.layers, "num_layers": 4, "num_heads": 4},
)
train_dataloader = dict(dataset=dict(refined_features=_base_.files.refined_features))
