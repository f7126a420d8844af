# python tools/train.py configs/prefix/prefix_pcm_vse_toy.py
#
# prefix_pcm_vse_coco.py in the toy world: the mixed tokens go through the visual-semantic encoder,
# and an MLP maps its global token to ten prefix vectors.
_base_ = "./prefix_pcm_toy.py"

model = dict(
    encoder=dict(
        type="pcm_plugin.VisualSemanticEncoder",
        embed_dims=128,
        num_layers=2,
        num_heads=4,
        ffn_dims=512,
        attn_dropout=0.3,
        dropout=0.2,
    ),
    mapper=dict(_delete_=True, type="pcm_plugin.MLPPrefixMapper", embed_dims=128),
)
