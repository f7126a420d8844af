# pcm train configs/prefix/prefix_pcm_vse_toy.py
#
# prefix_pcm_vse_coco.py in the toy world: the mixed tokens go through the visual-semantic encoder,
# and an MLP maps its global token to ten prefix vectors.
_base_ = "./prefix_pcm_toy.py"

model = dict(
    encoder=dict(**_base_.token_encoder, **_base_.toy.layers),
    mapper=dict(**_base_.token_mapper, embed_dims=128),
)
