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

build_commands = "make_demo"
