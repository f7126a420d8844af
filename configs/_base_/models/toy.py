# Settings of every captioner of the toy world, which configs take by name.

toy = dict(
    clip=dict(
        model_name="local-dir:" + __import__("pcm_plugin").packaged_file("toyworld/assets/clip"),
        pretrained=None,
    ),
    # Widths of the CLIP's features and of the captioner.
    patch_dim=192,
    widths=dict(clip_dim=128, embed_dims=128),
    layers=dict(embed_dims=128, num_layers=2, num_heads=4, ffn_dims=512),
)
