# About 1,500 iterations of the toy world, with a short warm-up to a peak near 2.5e-3.
_base_ = "./noam_12e.py"

train_cfg = dict(max_epochs=16, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=0.5))
param_scheduler = dict(embed_dims=128, warmup=300)
