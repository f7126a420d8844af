# The toy world's town: synthetic images of its captions for training, drawn scenes for evaluation.
_base_ = "./feature_store.py"

root = "data/toy/town"

train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    # All pairs: there are few, and with --quick fewer than a batch.
    drop_last=False,
    dataset=dict(store="data/toy/town/train_store"),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(store="data/toy/town/val_store", data_prefix="data/toy/town/images"),
)
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(store="data/toy/town/test_store", data_prefix="data/toy/town/images"),
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
        command="python tools/build_language_model.py data/toy/town/captions_train.json"
        " --out {path}",
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
    )
]
