# flickr30k_global.py for training on captions alone: features of captions replace those of images.
_base_ = "./flickr30k_global.py"

train_dataloader = dict(dataset=dict(features="text"))
