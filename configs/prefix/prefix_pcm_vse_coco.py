# python tools/train.py configs/prefix/prefix_pcm_vse_coco.py
#
# PCM in a prefix captioner in the form that PCM-Net's released code contains (its MapperEncoder):
# the mixed tokens go through the visual-semantic encoder, and an MLP maps its global token to ten
# prefix vectors. The released code has no config of it, and neither its language model nor a
# prompt: sizes and dropouts are those of the released PCM-Net, the width is GPT-2's, and language
# model, prompt and schedule are ViECap's as in prefix_pcm_coco.py.
_base_ = "./prefix_pcm_coco.py"

model = dict(
    neck=dict(dropout=0.5),
    encoder=dict(
        type="pcm_plugin.VisualSemanticEncoder",
        embed_dims=768,
        num_layers=3,
        num_heads=8,
        ffn_dims=2048,
        attn_dropout=0.3,
        dropout=0.2,
    ),
    mapper=dict(_delete_=True, type="pcm_plugin.MLPPrefixMapper", embed_dims=768, prefix_length=10),
)
