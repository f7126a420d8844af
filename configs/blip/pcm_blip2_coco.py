# pcm train configs/blip/pcm_blip2_coco.py --amp --cfg-options load_from=FILE.pth
#
# mmpretrain's BLIP-2 captioner with the mix-up: its own configuration, its frozen vision encoder
# wrapped, trained on synthetic pairs with the CLIP-weighted loss. A CLIP next to it finds the
# concepts. Without the mix-up: model.vision_backbone.selection=none
# FILE.pth contains mmpretrain's weights of BLIP-2; without them the frozen encoder would be random.
# Like mmpretrain's config it is for 8 processes of 32 pairs: tools/dist_train.sh CONFIG 8 --amp
_base_ = [
    "mmpretrain::blip2/blip2-opt2.7b_8xb32_caption.py",
    "../_base_/models/blip_mixup.py",
    "../_base_/datasets/coco_images.py",
]

model = dict(
    type="pcm_plugin.CLIPWeightedBlip2Caption",
    vision_backbone=dict(
        encoder={{_base_.model.vision_backbone}},
        mean={{_base_.data_preprocessor.mean}},
        std={{_base_.data_preprocessor.std}},
        **_base_.mixup_encoder,
    ),
    loss=_base_.weighted_loss,
)

# Its encoder was trained on 364 pixels.
train_dataloader = _base_.images.px364.train
val_dataloader = _base_.images.px364.val
test_dataloader = _base_.images.px364.test
val_evaluator = _base_.evaluators.val
test_evaluator = _base_.evaluators.test
default_hooks = dict(checkpoint=_base_.checkpoint)

train_cfg = dict(_delete_=True, **_base_.train_loop)
param_scheduler = _base_.cosine
randomness = _base_.seed
