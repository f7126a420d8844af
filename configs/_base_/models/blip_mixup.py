# Parts of mmpretrain's captioners with the mix-up. mmpretrain's own configs have a model and a
# schedule already, and two bases must not have the same key, so configs take these parts by name.

# Names the packages to install where mmpretrain's models cannot be imported.
custom_imports = dict(imports=["pcm_plugin.models.captioners.blip"])

clip = dict(model_name="ViT-B-32-quickgelu", pretrained="openai", pool=1)
mixup_encoder = dict(
    _delete_=True,
    type="pcm_plugin.MixupVisionEncoder",
    backbone=dict(type="pcm_plugin.OpenCLIPBackbone", **clip),
    concepts="data/coco/vit_b32/concepts.safetensors",
)
weighted_loss = dict(type="pcm_plugin.CLIPWeightedCELoss", clip_weight=2.5)

# As in mmpretrain, 8 x 32 pairs per iteration and 10 epochs, but resumable. The cosine ends with
# the run: mmpretrain's has a fixed end, after which a longer run would train with a rate of 0.
train_loop = dict(type="pcm_plugin.ResumableTrainLoop", max_epochs=10, val_interval=1)
cosine = [dict(type="CosineAnnealingLR", by_epoch=True, begin=0)]
seed = dict(seed=1234)
auto_scale_lr = dict(base_batch_size=256, enable=False)
