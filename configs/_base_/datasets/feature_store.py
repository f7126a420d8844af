# Training on the stored features of synthetic images, evaluation on those of real ones. Datasets
# build on this and say where their stores are.

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="pcm_plugin.SynthCaptionDataset"),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="pcm_plugin.SynthCaptionDataset", test_mode=True),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="pcm_plugin.CaptionMetric")
test_evaluator = val_evaluator

val_cfg = dict()
test_cfg = dict()
