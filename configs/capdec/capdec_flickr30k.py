# pcm train configs/capdec/capdec_flickr30k.py
#
# CapDec on Flickr30k, on captions alone.
_base_ = [
    "../_base_/models/capdec_vitb32.py",
    "../_base_/datasets/flickr30k_text.py",
    "../_base_/schedules/noam_12e.py",
    "../_base_/default_runtime.py",
]

model = dict(vocabulary=_base_.files.vocabulary)
