# Pixels of the synthetic images for COCO's captions, for mmpretrain's captioners. Their own configs
# have loaders already, and two bases may not both: leaves take these by name, and they replace
# what mmpretrain has (_delete_).

root = "data/coco"
# Karpathy's splits.
captions = "data/coco/dataset_coco.json"
# SynthImgCap was made with "Stable Diffusion"; its version and settings are published nowhere.
pipeline = "stable-diffusion-v1-5/stable-diffusion-v1-5"

image_size = 384
resize = dict(
    type="mmpretrain.Resize",
    scale=(image_size, image_size),
    interpolation="bicubic",
    backend="pillow",
)
pack = dict(
    type="mmpretrain.PackInputs",
    algorithm_keys=["gt_caption", "clip_score"],
    meta_keys=["image_id", "img_path"],
)
images = dict(
    train=dict(
        _delete_=True,
        batch_size=32,
        num_workers=4,
        persistent_workers=True,
        sampler=dict(type="DefaultSampler", shuffle=True),
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="pcm_plugin.SynthImageDataset",
            store="data/coco/vit_b32/train_store",
            images="data/coco/synthetic",
            pairs=None,
            pipeline=[
                dict(
                    type="mmpretrain.RandomResizedCrop",
                    scale=image_size,
                    # The whole picture or most of it: what the caption names must stay in it.
                    crop_ratio_range=(0.5, 1.0),
                    interpolation="bicubic",
                    backend="pillow",
                ),
                dict(type="mmpretrain.CleanCaption", keys="gt_caption"),
                pack,
            ],
        ),
    ),
    val=dict(
        _delete_=True,
        batch_size=16,
        num_workers=4,
        persistent_workers=True,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="pcm_plugin.SynthImageDataset",
            store="data/coco/vit_b32/val_store",
            images="data/coco/images",
            test_mode=True,
            pipeline=[resize, pack],
        ),
    ),
    test=dict(
        _delete_=True,
        batch_size=16,
        num_workers=4,
        persistent_workers=True,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="pcm_plugin.SynthImageDataset",
            store="data/coco/vit_b32/test_store",
            images="data/coco/images",
            test_mode=True,
            pipeline=[resize, pack],
        ),
    ),
    evaluator=dict(_delete_=True, type="pcm_plugin.CaptionMetric"),
    checkpoint=dict(
        _delete_=True,
        type="pcm_plugin.DurableCheckpointHook",
        interval=1,
        max_keep_ckpts=2,
        save_best="caption/CIDEr",
        rule="greater",
    ),
)

custom_hooks = [dict(type="pcm_plugin.SeedEveryIterationHook")]

_features = " --model {clip[model]} --pretrained {clip[pretrained]} --pool {clip[pool]} --out "
_synthetic = (
    "python tools/generate.py {captions} --pipeline {pipeline} --dtype float16 --batch-size 16"
    " --scheduler DPMSolverMultistepScheduler --steps 20 --guidance 7.5 --size 512"
    " --out {root}/synthetic"
)
_train_store = (
    _synthetic
    + " && python tools/extract.py {root}/synthetic"
    + _features
    + "{train_dataloader[dataset][store]}"
)
_real_store = "python tools/extract.py {root}/images --captions {captions} --split %s"
_concepts = (
    "python tools/build_concepts.py --captions {captions}"
    " --model {clip[model]} --pretrained {clip[pretrained]} --out {path}"
)
prerequisites = [
    dict(key="model.vision_encoder.concepts", command=_concepts, optional=True),
    dict(key="model.vision_backbone.concepts", command=_concepts, optional=True),
    # What the images show, the store says.
    dict(key="train_dataloader.dataset.images", command=_synthetic, identifies=False),
    dict(key="train_dataloader.dataset.store", command=_train_store),
    dict(
        key="train_dataloader.dataset.pairs",
        command="python tools/refine.py {train_dataloader[dataset][store]} --out FOLDER",
    ),
    dict(key="val_dataloader.dataset.store", command=_real_store % "val" + _features + "{path}"),
    dict(key="test_dataloader.dataset.store", command=_real_store % "test" + _features + "{path}"),
]
