# A language model that continues a prefix, which is computed from the global feature of CLIP
# ViT-B/32. The sizes are those of ViECap's released code (Fei et al. 2023), with one token per
# feature and captions in our form. viecap_vitb32.py has all settings of ViECap.

# The CLIP of features and concepts, for the commands that create missing files.
clip = dict(model_name="ViT-B-32-quickgelu", pretrained="openai", pool=1)

model = dict(
    type="pcm_plugin.PrefixCaptioner",
    # With a GPU, batches are in pinned memory, and copies to the GPU are asynchronous.
    data_preprocessor=dict(type="BaseDataPreprocessor", non_blocking=True),
    # Dropout is ours: with PCM-Net's 0.5 the mix-up learns more slowly in the toy world.
    neck=dict(
        type="pcm_plugin.GlobalPrefix", clip_dim=512, embed_dims=768, noise_var=0.016, dropout=0.1
    ),
    mapper=dict(
        type="pcm_plugin.PrefixMapper", embed_dims=768, prefix_length=10, num_layers=8, num_heads=8
    ),
    language_model="openai-community/gpt2",
    entity_prompt=dict(
        type="pcm_plugin.EntityPrompt",
        template="There are {} in image.",
        top_concepts=3,
        concept_threshold=0.2,
        temperature=0.01,
    ),
    # Plain cross entropy, as in ViECap's released code. Only captioners with the mix-up weight
    # their pairs.
    loss=dict(
        type="pcm_plugin.CLIPWeightedCELoss",
        label_smoothing=0.0,
        clip_weight=2.5,
        gamma_type="none",
        use_clip_weight=False,
    ),
    decoding=dict(beam_size=5, max_len=30),
)
