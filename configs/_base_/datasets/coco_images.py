# Pixels of the synthetic images for COCO's captions, for mmpretrain's captioners. Their own configs
# have loaders already, and two bases may not both: leaves take these by name, and they replace
# what mmpretrain has (_delete_).

root = "data/coco"
# Karpathy's splits.
captions = "data/coco/dataset_coco.json"
# SynthImgCap was made with "Stable Diffusion"; its version and settings are published nowhere.
pipeline = "stable-diffusion-v1-5/stable-diffusion-v1-5"

pack = dict(
    type="mmpretrain.PackInputs",
    algorithm_keys=["gt_caption", "clip_score"],
    meta_keys=["image_id", "img_path"],
)


def _loader(split, images, size):
    # Whole pictures, with the train split too: what the caption names stays in them, and a run
    # that goes on sees the pixels that it would have seen.
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


# By the side of the images in pixels.
images = dict(px384=_loaders(384), px364=_loaders(364))
# One each: what is taken twice would replace what mmpretrain has only once.
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

_features = " --model {clip[model]} --pretrained {clip[pretrained]} --pool {clip[pool]} --out "
# One image for captions of equal text, as in SynthImgCap.
_synthetic = (
    "python tools/generate.py {captions} --unique --pipeline {pipeline} --dtype float16"
    " --batch-size 16 --scheduler DPMSolverMultistepScheduler --steps 20 --guidance 7.5 --size 512"
    " --out {root}/synthetic"
)
_train_store = (
    _synthetic
    + " && python tools/extract.py {root}/synthetic"
    + _features
    + "{train_dataloader[dataset][store]}"
)
_real_store = "python tools/extract.py {root}/images --captions {captions} --split %s"
# Prompts as in the released concept files, by all evidence.
_concepts = (
    "python tools/build_concepts.py --captions {captions} --templates simple"
    " --model {clip[model]} --pretrained {clip[pretrained]} --out {path}"
)
required_files = [
    dict(key="model.vision_encoder.concepts", command=_concepts, optional=True),
    dict(key="model.vision_backbone.concepts", command=_concepts, optional=True),
    # What the images show, the store says.
    dict(key="train_dataloader.dataset.img_dir", command=_synthetic, in_fingerprint=False),
    dict(key="train_dataloader.dataset.store", command=_train_store),
    dict(
        key="train_dataloader.dataset.pairs",
        command="python tools/refine.py {train_dataloader[dataset][store]} --out FOLDER",
    ),
    dict(key="val_dataloader.dataset.store", command=_real_store % "val" + _features + "{path}"),
    dict(key="test_dataloader.dataset.store", command=_real_store % "test" + _features + "{path}"),
]
