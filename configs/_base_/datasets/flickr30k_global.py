# flickr30k.py for captioners that take no patches: only the global feature of each image is read.
_base_ = "./flickr30k.py"

train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(features="global"))
