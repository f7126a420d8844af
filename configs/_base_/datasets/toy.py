# The town of the toy world: synthetic images for its captions in training, drawn scenes for
# validation and test.
_base_ = "./feature_store.py"

root = "data/toy/town"

# Files of captioners, which configs take by name.
files = dict(
    vocabulary=f"{root}/vocabulary.txt",
    concepts=f"{root}/concepts.safetensors",
    clip_head=f"{root}/train_store/clip_head.safetensors",
    refined_features=f"{root}/contrast/features.safetensors",
    language_model=f"{root}/gpt2",
)

train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    # There are few pairs, and with --quick fewer than a batch.
    drop_last=False,
    dataset=dict(store=f"{root}/train_store"),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(store=f"{root}/val_store", data_prefix=f"{root}/images"),
)
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(store=f"{root}/test_store", data_prefix=f"{root}/images"),
)

required_files = [
    dict(key=f"model.neck.{key}", command="make demo", optional=True)
    for key in ("concepts", "clip_head", "memory")
]
# Captioners have a vocabulary, or a language model and concepts of their own.
required_files += [
    dict(key=f"model.{key}", command="make demo", optional=True)
    for key in ("vocabulary", "concepts")
]
required_files += [
    dict(
        key="model.language_model",
        command="python tools/build_language_model.py {root}/captions_train.json --out {path}",
        optional=True,
    ),
]
required_files += [
    dict(key=key, command="make demo")
    for key in (
        "train_dataloader.dataset.store",
        "val_dataloader.dataset.store",
        "test_dataloader.dataset.store",
    )
]
required_files += [
    dict(
        key="train_dataloader.dataset.pairs",
        command="python tools/refine.py {train_dataloader[dataset][store]} --out FOLDER",
    ),
    # Features that are moved towards captions (SynTIC).
    dict(
        key="train_dataloader.dataset.refined_features",
        command="python tools/refine.py {train_dataloader[dataset][store]} --method contrast"
        " --temperature 0.03 --out {folder}",
        optional=True,
    ),
    # Labels of a detector, which replace the concepts (SynTIC).
    *(
        dict(
            key=f"{loop}_dataloader.dataset.object_labels",
            command="a detector of yours",
            optional=True,
        )
        for loop in ("train", "val", "test")
    ),
]
