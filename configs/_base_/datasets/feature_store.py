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

# What tools/train.py and tools/test.py look for before they build anything: where the final config
# has its path, and what makes it; optional: necks that have no such setting do without. A leaf that
# reads another data set too says in `extra_datasets` what that one's root and captions are.
_features = " --model {clip[model]} --pretrained {clip[pretrained]} --pool {clip[pool]} --out "
# One image for captions of equal text, as in SynthImgCap.
_painted = (
    "python tools/generate.py {captions} --unique --pipeline {pipeline} --dtype float16"
    " --batch-size 16 --scheduler DPMSolverMultistepScheduler --steps 20 --guidance 7.5 --size 512"
    " --out {root}/synthetic && python tools/extract.py {root}/synthetic" + _features
)
# Prompts as in the released concept files: open_clip's set of seven, by all evidence. The paper
# names "A photo of {}".
_concepts = (
    "python tools/build_concepts.py --captions {captions} --templates simple"
    " --model {clip[model]} --pretrained {clip[pretrained]} --out {path}"
)
entities = "configs/words/coco_categories.txt"
_train_store = _painted + "{train_dataloader[dataset][store]}"
_real_store = "python tools/extract.py {root}/images --captions {captions}{split}" + _features
required_files = [
    dict(
        key="model.vocabulary",
        # As the released lists were made: counted over all splits, UNK for rare words.
        command="python tools/build_vocabulary.py {captions} --split all --unk --out {path}",
        optional=True,
    ),
    # The released concepts are COCO's for both data sets: docs/coco_and_flickr30k.md.
    dict(key="model.neck.concepts", command=_concepts, optional=True),
    # What a prompt names: the words of a list, in training those of captions.
    dict(
        key="model.concepts",
        command="python tools/build_concepts.py {entities} --templates simple"
        " --model {clip[model]} --pretrained {clip[pretrained]} --out {path}",
        optional=True,
    ),
    dict(key="model.caption_entities", command=_concepts, optional=True),
    dict(key="model.neck.clip_head", command=_train_store, optional=True),
    dict(key="model.neck.memory", command=_painted + "{path}", optional=True),
    dict(key="train_dataloader.dataset.store", command=_train_store),
    dict(
        key="train_dataloader.dataset.pairs",
        command="python tools/refine.py {train_dataloader[dataset][store]} --out FOLDER",
    ),
    # Features that are moved towards captions (SynTIC).
    dict(
        key="train_dataloader.dataset.refined_features",
        command="python tools/refine.py {train_dataloader[dataset][store]} --method contrast"
        " --out {folder}",
        optional=True,
    ),
    # Labels of a detector, which replace the concepts (SynTIC).
    *(
        dict(
            key=f"{loop}_dataloader.dataset.object_labels",
            command="a detector of yours",
            optional=True,
        )
        for loop in ("train", "val", "test")
    ),
]
# Only a metric that scores groups of images has it.
required_files.append(
    dict(
        key="test_evaluator.groups",
        command="those who made the data set (NoCaps: https://nocaps.org/download)",
        optional=True,
    )
)
# For a data set whose file knows no splits, `extra_datasets` says split="".
required_files += [
    dict(
        key=f"{loop}_dataloader.dataset.store",
        command=_real_store + "{path}",
        split=f" --split {loop}",
    )
    for loop in ("val", "test")
]
