# python tools/train.py configs/syntic/syntic_flickr30k.py
#
# SynTIC (AAAI 2024, arXiv 2312.08865) on Flickr30k, CLIP ViT-B/32: a reconstruction, since no
# code, loss or settings are public. The paper's own: 56.6 CIDEr. What is ours is said in SynTIC,
# ObjectPrefix and refine_by_contrast; the schedule is PCM-Net's, the loss its unweighted
# one.
_base_ = "../pcm_flickr30k.py"

model = dict(
    type="pcm_plugin.SynTIC",
    neck=dict(
        _delete_=True,
        type="pcm_plugin.ObjectPrefix",
        clip_dim=512,
        concepts="data/flickr30k/vit_b32/concepts.safetensors",
        memory="data/flickr30k/vit_b32/train_store",
    ),
    encoder=None,
    # The paper's; widths and dropouts are PCM-Net's.
    decoder=dict(num_layers=4, num_heads=4),
    # No source gives SynTIC's loss. Ours is PCM-Net's released unweighted loss: label smoothing 0.1
    # and no (1 - p)^2 factor. Refinement has moved each image to its caption: there is little left
    # to weight.
    loss=dict(use_clip_weight=False, gamma_type="none"),
)

train_dataloader = dict(
    dataset=dict(
        features="global", refined_features="data/flickr30k/vit_b32/contrast/features.safetensors"
    )
)
val_dataloader = dict(dataset=dict(features="global"))
test_dataloader = dict(dataset=dict(features="global"))

required_files = [
    *_base_.required_files,
    dict(
        key="train_dataloader.dataset.refined_features",
        command="python tools/refine.py {train_dataloader[dataset][store]} --method contrast"
        " --out {folder}",
    ),
    # A detector's labels, where they take the concepts' place.
    *(
        dict(
            key=f"{loop}_dataloader.dataset.object_labels",
            command="a detector of yours",
            optional=True,
        )
        for loop in ("train", "val", "test")
    ),
]
