# Settings of every captioner of the toy world, which configs take by name.

toy = dict(
    clip=dict(
        model_name="local-dir:" + __import__("pcm_plugin").packaged_file("toyworld/assets/clip"),
        pretrained=None,
    ),
    # Widths of the CLIP's features and of the captioner.
    widths=dict(clip_dim=128, embed_dims=128),
    layers=dict(embed_dims=128, num_layers=2, num_heads=4, ffn_dims=512),
    # One over the logit scale of its CLIP, 34.6, as 0.01 is of OpenAI's.
    temperature=0.03,
    # An object covers 3 patches of 49, the largest of an image 4: with 5, mixing would hide it.
    num_pairs=2,
    # The cosine of a caption and its image is about 0.57: with 2.5 the weights of almost all pairs
    # would be at their maximum of 1.
    clip_weight=1.3,
)
