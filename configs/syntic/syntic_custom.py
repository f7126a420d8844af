# SynTIC, a reconstruction, on your own captions. tools/make_dataset.py writes a config with the same
# settings that inherits the one of the data: python tools/train.py data/mine/syntic.py
#
# Sizes and scales are those of the recipe. The features come from tools/refine.py --method contrast.
_base_ = "../pcm_custom.py"

_root, _found = _base_.root, _base_.model.neck
model = dict(
    type="pcm_plugin.SynTIC",
    neck=dict(
        _delete_=True,
        type="pcm_plugin.ObjectPrefix",
        clip_dim=_found.clip_dim,
        embed_dims=_found.embed_dims,
        concepts=_found.concepts,
        text_memory=f"{_root}/train_store",
        text_memory_temperature=_found.temperature,
    ),
    encoder=None,
    # The paper's; widths and dropouts are PCM-Net's.
    decoder=dict(num_layers=4, num_heads=4),
    # No source gives SynTIC's loss. Ours is PCM-Net's released unweighted loss: label smoothing 0.1
    # and no (1 - p)^2 factor. Refinement has moved each image to its caption: there is little left
    # to weight.
    loss=dict(use_clip_weight=False, gamma_type="none"),
)

_global = dict(dataset=dict(features="global"))
train_dataloader = dict(
    # All pairs, each with its own image: what `pairs` chose goes by the features as they were.
    dataset=dict(
        features="global", pairs=None, refined_features=f"{_root}/contrast/features.safetensors"
    )
)
val_dataloader = _global if _base_.val_dataloader else None
test_dataloader = _global if _base_.test_dataloader else None
