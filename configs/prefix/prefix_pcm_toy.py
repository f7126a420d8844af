# python tools/train.py configs/prefix/prefix_pcm_toy.py
#
# PCM in ViECap's form in the toy world: the prefix is made of mixed patches, and pairs are weighted
# by CLIP.
_base_ = "./prefix_toy.py"

model = dict(
    neck=dict(
        _delete_=True,
        type="pcm_plugin.PCMMixup",
        patch_dim=128,
        clip_dim=128,
        embed_dims=128,
        noise_var=0.016,
        dropout=0.1,
        concepts="data/toy/town/concepts.safetensors",
        clip_head="data/toy/town/train_store/clip_head.safetensors",
        # As pcm_toy.py has them.
        top_patches=2,
        temperature=0.03,
    ),
    loss=dict(use_clip_weight=True),
)
train_dataloader = dict(dataset=dict(features="patch"))
val_dataloader = dict(dataset=dict(features="patch"))
test_dataloader = dict(dataset=dict(features="patch"))
