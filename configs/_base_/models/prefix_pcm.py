# Parts of the prefix captioners with PCM's mix-up, which configs take by name.

# The mixed tokens are the prefix. Dropout is ours (prefix_vitb32.py).
mixup_neck = dict(_delete_=True, type="pcm_plugin.PCMMixup", noise_var=0.016, dropout=0.1)
mixup_loss = dict(use_clip_weight=True)
patch_loader = dict(dataset=dict(features="patch"))

# As in the released code of PCM-Net (its MapperEncoder): an encoder for the mixed tokens, and an
# MLP that maps its global token to ten prefix vectors. Dropouts are those of the released PCM-Net.
token_encoder = dict(type="pcm_plugin.VisualSemanticEncoder", attn_dropout=0.3, dropout=0.2)
token_mapper = dict(_delete_=True, type="pcm_plugin.MLPPrefixMapper", prefix_length=10)
