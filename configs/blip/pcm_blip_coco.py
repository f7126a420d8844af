# pcm train configs/blip/pcm_blip_coco.py --cfg-options load_from=FILE.pth
#
# mmpretrain's BLIP captioner with the mix-up: its own configuration, its vision encoder wrapped,
# trained on synthetic pairs with the CLIP-weighted loss. A CLIP next to it finds the concepts.
# Without the mix-up: model.vision_encoder.selection=none
# FILE.pth contains mmpretrain's weights of BLIP (docs/pcm_in_your_project.md). Like mmpretrain's
# config it is for 8 processes of 32 pairs: tools/dist_train.sh configs/blip/pcm_blip_coco.py 8
_base_ = [
    "mmpretrain::blip/blip-base_8xb32_caption.py",
    "../_base_/models/blip_mixup.py",
    "../_base_/datasets/coco_images.py",
]

model = dict(
    type="pcm_plugin.CLIPWeightedBlipCaption",
    vision_encoder=dict(
        encoder={{_base_.model.vision_encoder}},
        mean={{_base_.data_preprocessor.mean}},
        std={{_base_.data_preprocessor.std}},
        **_base_.mixup_encoder,
    ),
    # mmpretrain's decoder, which generates captions with every version of transformers.
    decoder_head=dict(decoder=dict(type="pcm_plugin.BlipDecoder")),
    loss=_base_.weighted_loss,
)

train_dataloader = _base_.images.px384.train
val_dataloader = _base_.images.px384.val
test_dataloader = _base_.images.px384.test
val_evaluator = _base_.evaluators.val
test_evaluator = _base_.evaluators.test
default_hooks = dict(checkpoint=_base_.checkpoint)

train_cfg = _base_.train_loop
param_scheduler = _base_.cosine
randomness = _base_.seed
