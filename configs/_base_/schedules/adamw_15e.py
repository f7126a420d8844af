# ViECap's schedule (Fei et al. 2023; main.py of its released code): 15 epochs, AdamW. The rate
# rises over 5,000 iterations and then falls in a line to 0 at the end of the run; gradients are not
# clipped. MMEngine's rate cannot be 0 in the first iteration, so that the warm-up is one ahead.

train_cfg = dict(type="pcm_plugin.ResumableTrainLoop", max_epochs=15, val_interval=1)

# One pass over the weights instead of ten (fused); on a CPU that needs torch 2.4.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0, fused=True),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=2e-4, by_epoch=False, begin=0, end=5000),
    # Without an end it lasts as long as the run.
    dict(type="LinearLR", start_factor=1.0, end_factor=0.0, by_epoch=False, begin=5000),
]

# 80 pairs on one GPU; tools/train.py --auto-scale-lr scales from there.
auto_scale_lr = dict(base_batch_size=80, enable=False)
