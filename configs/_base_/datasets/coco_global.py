# coco.py for captioners that take no patches: only the global feature of each image is read.
_base_ = "./coco.py"

train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(features="global"))
