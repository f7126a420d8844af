# PCM-Net of `pcm demo --recipe toy`, for images of the toy world and mmpretrain's inference_model.
model = dict(
    type="pcm_plugin.load_captioner",
    path="{{ fileDirname }}/pcm-net_toy.safetensors",
    # The normalization of the CLIP, as in its open_clip_config.json.
    data_preprocessor=dict(
        type="mmpretrain.MultiModalDataPreprocessor",
        mean=[127.5, 127.5, 127.5],
        std=[63.75, 63.75, 63.75],
        to_rgb=True,
    ),
)
test_dataloader = dict(
    dataset=dict(
        type="pcm_plugin.SynthCaptionDataset",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(112, 112), backend="pillow", interpolation="bicubic"),
            dict(type="PackInputs"),
        ],
    )
)
