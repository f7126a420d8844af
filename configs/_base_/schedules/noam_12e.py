# The released schedule: 12 epochs of Adam with the Noam schedule, gradients clipped by value.

train_cfg = dict(type="pcm_plugin.ResumableTrainLoop", max_epochs=12, val_interval=1)

# lr is multiplied with the rate of the schedule. fused: one pass over the weights instead of ten;
# on a CPU it needs torch 2.4.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="Adam", lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, fused=True),
    clip_grad=dict(type="value", clip_value=0.1),
)
param_scheduler = dict(type="pcm_plugin.NoamLR", embed_dims=512, warmup=10_000, by_epoch=False)

# The learning rate is for 32 pairs per iteration, as released; pcm train --auto-scale-lr
# scales it.
auto_scale_lr = dict(base_batch_size=32, enable=False)
