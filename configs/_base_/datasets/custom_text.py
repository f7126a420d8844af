# Training on your own captions alone, evaluation on stored features of real images. The configs
# that `pcm make-dataset` writes set `root`.
_base_ = "./feature_store.py"

root = "data/custom"
train_dataloader = dict(dataset=dict(store=f"{root}/train_store", features="text"))
val_dataloader = dict(dataset=dict(store=f"{root}/val_store", features="global"))
test_dataloader = dict(dataset=dict(store=f"{root}/test_store", features="global"))

build_commands = "make_dataset"
