# python tools/train.py configs/blip/pcm_blip_coco.py --cfg-options load_from=FILE.pth
#
# mmpretrain's BLIP captioner with the mix-up: its own configuration, its vision encoder wrapped,
# trained on synthetic pairs with the CLIP-weighted loss. Concepts come from a CLIP beside it.
# Without the mix-up: model.vision_encoder.mix=none
# FILE.pth are mmpretrain's weights of BLIP (docs/pcm_in_your_captioner.md). As mmpretrain's config
# it is for 8 processes of 32 pairs: tools/dist_train.sh configs/blip/pcm_blip_coco.py 8
_base_ = [
    "mmpretrain::blip/blip-base_8xb32_caption.py",
    "../_base_/datasets/coco_images.py",
]

# Says what to install where mmpretrain's models cannot be imported.
custom_imports = dict(imports=["pcm_plugin.models.captioners.blip"])

clip = dict(model="ViT-B-32-quickgelu", pretrained="openai", pool=1)

model = dict(
    type="pcm_plugin.CLIPWeightedBlipCaption",
    vision_encoder=dict(
        _delete_=True,
        type="pcm_plugin.MixupVisionEncoder",
        encoder={{_base_.model.vision_encoder}},
        clip=dict(
            type="pcm_plugin.OpenCLIPBackbone",
            model_name=clip["model"],
            pretrained=clip["pretrained"],
            pool=clip["pool"],
        ),
        mean={{_base_.data_preprocessor.mean}},
        std={{_base_.data_preprocessor.std}},
        concepts="data/coco/vit_b32/concepts.safetensors",
    ),
    loss=dict(type="pcm_plugin.CLIPWeightedCELoss", clip_weight=2.5),
)

train_dataloader = {{_base_.images.px384.train}}
val_dataloader = {{_base_.images.px384.val}}
test_dataloader = {{_base_.images.px384.test}}
val_evaluator = {{_base_.evaluators.val}}
test_evaluator = {{_base_.evaluators.test}}
default_hooks = dict(checkpoint={{_base_.checkpoint}})

# As mmpretrain's own, 8 x 32 pairs per iteration and 10 epochs, but resumable. The cosine ends with
# the run: mmpretrain's has an end of its own, after which a longer run would train at rate 0.
train_cfg = dict(type="pcm_plugin.ResumableTrainLoop", val_interval=1)
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=True, begin=0)]
randomness = dict(seed=1234)
auto_scale_lr = dict(base_batch_size=256, enable=False)
