# SynTIC, a reconstruction, on your own captions. `pcm make-dataset` writes a config with the
# same settings that inherits the one of the data: pcm train data/mine/syntic.py
#
# Sizes and scales are those of the recipe. Features come from pcm refine --method contrast.
_base_ = "../pcm_custom.py"

_root, _found = _base_.root, _base_.model.neck
# With captions that are held out for validation, the others; None for all.
_held_out = _base_.val_dataloader and _base_.val_dataloader.dataset.get("references")
_pairs = f"{_root}/validation/train_pairs.safetensors" if _held_out else None
model = dict(
    type="pcm_plugin.SynTIC",
    neck=dict(
        _delete_=True,
        type="pcm_plugin.ObjectPrefix",
        clip_dim=_found.clip_dim,
        embed_dims=_found.embed_dims,
        concepts=_found.concepts,
        text_memory=f"{_root}/train_store",
        text_memory_pairs=_pairs,
        text_memory_temperature=_found.temperature,
    ),
    encoder=None,
    # The settings of _base_/models/syntic_vitb32.py, which gives their sources.
    decoder=dict(num_layers=4, num_heads=4),
    loss=dict(use_clip_weight=False, gamma_type="none"),
)

_global = dict(dataset=dict(features="global"))
train_dataloader = dict(
    # Each caption with its own image: `pairs` of the base was selected by the features before
    # refinement.
    dataset=dict(
        store=f"{_root}/train_store",  # without photos, which have no captions of their own
        features="global",
        pairs=_pairs,
        refined_features=f"{_root}/contrast/features.safetensors",
    )
)
val_dataloader = _global if _base_.val_dataloader else None
test_dataloader = _global if _base_.test_dataloader else None
