# pcm train configs/prefix/prefix_text_toy.py
#
# A prefix captioner in the toy world, on captions alone: noise on the CLIP feature of the caption,
# no image in training.
_base_ = "./prefix_toy.py"

train_dataloader = dict(dataset=dict(features="text"))
