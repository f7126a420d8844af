# PCM-Net with the released hyper-parameters for CLIP ViT-B/32.
# The loss of the paper has no confidence factor: loss=dict(gamma_type='none').
# Neither has the released loss without CLIP weights (LabelSmoothing):
# loss=dict(use_clip_weight=False, gamma_type='none').

# The CLIP of features and concepts, for the commands that create missing files.
clip = dict(model_name="ViT-B-32-quickgelu", pretrained="openai", pool=1)

model = dict(
    type="pcm_plugin.PCMNet",
    # With a GPU, batches are in pinned memory, and copies to the GPU are asynchronous.
    data_preprocessor=dict(type="BaseDataPreprocessor", non_blocking=True),
    neck=dict(
        type="pcm_plugin.PCMMixup",
        patch_dim=768,
        clip_dim=512,
        embed_dims=512,
        num_patches=49,
        top_concepts=5,
        num_pairs=5,
        concept_threshold=0.0,
        temperature=0.01,
        noise_var=0.016,
        dropout=0.5,
    ),
    encoder=dict(
        type="pcm_plugin.VisualSemanticEncoder",
        embed_dims=512,
        num_layers=3,
        num_heads=8,
        ffn_dims=2048,
        attn_dropout=0.3,
        dropout=0.2,
    ),
    decoder=dict(
        type="pcm_plugin.SentenceDecoder",
        embed_dims=512,
        num_layers=3,
        num_heads=8,
        ffn_dims=2048,
        attn_dropout=0.3,
        dropout=0.2,
        embed_dropout=0.1,
        output_dropout=0.5,
    ),
    loss=dict(
        type="pcm_plugin.CLIPWeightedCELoss",
        label_smoothing=0.1,
        clip_weight=2.5,
        gamma=2,
        gamma_type="batch",
    ),
    decoding=dict(beam_size=3, max_len=20),
)
