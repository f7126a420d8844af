# Synthetic images for COCO's captions as pixels, for mmpretrain's captioners. mmpretrain's own
# configs have data loaders already, and two bases must not have the same key, so configs take these
# by name. They replace those of mmpretrain (_delete_).

root = "data/coco"
# The file with Karpathy's splits.
captions = "data/coco/dataset_coco.json"
# SynthImgCap was made with "Stable Diffusion"; its version and settings are not published.
pipeline = "stable-diffusion-v1-5/stable-diffusion-v1-5"

pack = dict(
    type="mmpretrain.PackInputs",
    algorithm_keys=["gt_caption", "clip_score"],
    meta_keys=["image_id", "img_path"],
)


def _loader(split, images, size):
    # Whole images in training as well: they keep what the caption names, and a resumed run reads
    # the same pixels.
    pipeline = [
        dict(
            type="mmpretrain.Resize",
            scale=(size, size),
            interpolation="bicubic",
            backend="pillow",
        )
    ]
    if split == "train":
        pipeline.append(dict(type="mmpretrain.CleanCaption", keys="gt_caption"))
    more = dict(pairs=None) if split == "train" else dict(test_mode=True)
    return dict(
        _delete_=True,
        batch_size=32 if split == "train" else 16,
        num_workers=4,
        persistent_workers=True,
        sampler=dict(type="DefaultSampler", shuffle=split == "train"),
        collate_fn=dict(type="default_collate"),
        drop_last=split == "train",
        dataset=dict(
            type="pcm_plugin.SynthImageDataset",
            store=f"data/coco/vit_b32/{split}_store",
            img_dir=f"data/coco/{images}",
            pipeline=[*pipeline, pack],
            **more,
        ),
    )


def _loaders(size):
    return dict(
        train=_loader("train", "synthetic", size),
        val=_loader("val", "images", size),
        test=_loader("test", "images", size),
    )


# By the width and height of the images in pixels.
images = dict(px384=_loaders(384), px364=_loaders(364))
# Two dicts: `_delete_` takes effect only once per dict.
evaluators = dict(
    val=dict(_delete_=True, type="pcm_plugin.CaptionMetric"),
    test=dict(_delete_=True, type="pcm_plugin.CaptionMetric"),
)
checkpoint = dict(
    _delete_=True,
    type="pcm_plugin.AtomicCheckpointHook",
    interval=1,
    max_keep_ckpts=2,
    save_best="caption/CIDEr",
    rule="greater",
)
custom_hooks = [dict(type="pcm_plugin.SeedEveryIterationHook")]

# The commands that create missing files (pcm_plugin/commands/build_commands.py).
build_commands = "generate_from_captions"
