# Training on the stored features of synthetic images, evaluation on those of real ones. Datasets
# build on this and say where their files are: `captions`, a file that knows splits (Karpathy's),
# and {root}/images, the real images of val and test.

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    # As released: the last pairs of an epoch that do not fill a batch are left out.
    drop_last=True,
    # pairs: of tools/refine.py, None trains on all.
    dataset=dict(type="pcm_plugin.SynthCaptionDataset", pairs=None),
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

# The commands that create missing files (pcm_plugin/commands/build_commands.py). The classes of model,
# datasets and metrics declare which files they read.
build_commands = "generate_from_captions"
# What a prompt names: the words of a list, in training those of captions.
entities = "configs/words/coco_categories.txt"
