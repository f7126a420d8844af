# Training on stored features of synthetic images, evaluation on those of real images. Data sets
# inherit this file and set their paths: `captions`, a file with splits (Karpathy's), and `root`,
# the folder with `images`, the real images of val and test.

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    # As released: the last pairs of an epoch, which do not fill a batch, are dropped.
    drop_last=True,
    # pairs: selection by `pcm refine`; None trains on all pairs.
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

# The commands that create missing files (pcm_plugin/commands/build_commands.py). The classes of
# models, datasets and metrics declare which files they read.
build_commands = "generate_from_captions"
# Word list of the entities that a prompt names.
entities = __import__("os").path.relpath("{{ fileDirname }}/../../words/coco_categories.txt")
