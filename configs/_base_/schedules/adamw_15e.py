# ViECap's schedule (Fei et al. 2023, as its released code has it): 15 epochs, AdamW, the rate rises
# over 5,000 iterations and falls to 0 in a line; gradients are not clipped. Here the fall begins
# with the rise, so that the highest rate on COCO is 5 % lower.

train_cfg = dict(type="pcm_plugin.ResumableTrainLoop", max_epochs=15, val_interval=1)

# One pass over the weights instead of ten (fused); on a CPU that needs torch 2.4.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-5, betas=(0.9, 0.999), eps=1e-6, weight_decay=0, fused=True),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=5000),
    dict(
        type="LinearLR",
        start_factor=1.0,
        end_factor=0.0,
        by_epoch=True,
        begin=0,
        end=15,
        convert_to_iter_based=True,
    ),
]

# 80 pairs on one GPU; tools/train.py --auto-scale-lr scales from there.
auto_scale_lr = dict(base_batch_size=80, enable=False)
