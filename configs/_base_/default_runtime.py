# Checkpoints are chosen by CIDEr on validation. The released recipe has no validation set: it was
# tested on the test split after each epoch.
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=100),
    checkpoint=dict(
        type="pcm_plugin.AtomicCheckpointHook",
        interval=1,
        max_keep_ckpts=2,
        save_best="caption/CIDEr",
        rule="greater",
    ),
    # Stops before the first iteration if more than 5 % of the captions have no word of the
    # vocabulary.
    vocabulary=dict(type="pcm_plugin.VocabularyCoverageHook", max_unknown_captions=0.05),
)
custom_hooks = [
    dict(type="pcm_plugin.SeedEveryIterationHook"),
    # Some images with captions and concepts after each validation, in vis_data/vis_image.
    dict(type="pcm_plugin.MixupVisualizationHook"),
]

randomness = dict(seed=1234)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    # Two hours: the other processes wait while the first one computes the scores, and SPICE is
    # slow.
    dist_cfg=dict(backend="nccl", timeout=7200),
)
log_level = "INFO"
load_from = None
resume = False
