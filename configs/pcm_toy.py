# pcm train configs/pcm_toy.py
#
# PCM-Net in the toy world, as `pcm demo --recipe toy` trains it: the configuration of COCO except
# for sizes, paths and schedule. Rows of docs/results.md:
#   base            --cfg-options model.neck.selection=none model.loss.use_clip_weight=False
#                       model.loss.gamma_type=none
#   + mix-up        --cfg-options model.loss.use_clip_weight=False model.loss.gamma_type=none
#   + CLIP weights  --cfg-options model.neck.selection=none
#   text-only       configs/capdec/capdec_toy.py
# gamma_type=none, since the released unweighted loss has no factor (1 - p)^2.
_base_ = [
    "./_base_/models/pcm_vitb32.py",
    "./_base_/models/toy.py",
    "./_base_/datasets/toy.py",
    "./_base_/schedules/noam_toy.py",
    "./_base_/toy_runtime.py",
]

clip = _base_.toy.clip
model = dict(
    vocabulary=_base_.files.vocabulary,
    neck=dict(
        **_base_.toy.widths,
        patch_dim=_base_.toy.patch_dim,
        concepts=_base_.files.concepts,
        clip_head=_base_.files.clip_head,
    ),
    encoder=_base_.toy.layers,
    decoder=_base_.toy.layers,
)
