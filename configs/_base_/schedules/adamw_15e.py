# ViECap's schedule (Fei et al. 2023; main.py of its released code): 15 epochs of AdamW. The
# learning rate rises over 5,000 iterations and then decreases linearly to 0 at the end of the run.
# Gradients are not clipped. In MMEngine the rate cannot be 0 in the first iteration, so the warm-up
# is one iteration ahead.

train_cfg = dict(type="pcm_plugin.ResumableTrainLoop", max_epochs=15, val_interval=1)

# fused: one pass over the weights instead of ten; on a CPU it needs torch 2.4.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0, fused=True),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=2e-4, by_epoch=False, begin=0, end=5000),
    # Without `end` it lasts until the end of the run.
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, by_epoch=False, begin=5000),
]

# The learning rate is for 80 pairs per iteration; pcm train --auto-scale-lr scales it.
auto_scale_lr = dict(base_batch_size=80, enable=False)
