# pcm train configs/prefix/prefix_pcm_vse_coco.py
#
# PCM in a prefix captioner in the form that PCM-Net's released code contains (its MapperEncoder):
# the mixed tokens go through the visual-semantic encoder, and an MLP maps its global token to ten
# prefix vectors. The released code has no config of it, no language model and no prompt: sizes and
# dropouts are those of the released PCM-Net, the width is GPT-2's, and language model, prompt and
# schedule are ViECap's, as in prefix_pcm_coco.py.
_base_ = "./prefix_pcm_coco.py"

model = dict(
    neck=dict(dropout=0.5),
    encoder=dict(**_base_.token_encoder, embed_dims=768, num_layers=3, num_heads=8, ffn_dims=2048),
    mapper=dict(**_base_.token_mapper, embed_dims=768),
)
