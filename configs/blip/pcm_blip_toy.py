# pcm train configs/blip/pcm_blip_toy.py
#
# mmpretrain's BLIP captioner in the toy world, small and from scratch, with the mix-up: the
# configuration of COCO except for sizes, paths and schedule. Without the mix-up and the weights, as
# a baseline:
#   --cfg-options model.vision_encoder.selection=none model.loss.use_clip_weight=False
#       model.loss.gamma_type=none
_base_ = ["./pcm_blip_coco.py", "../_base_/models/toy.py"]

root = "data/toy/town"
clip = _base_.toy.clip

model = dict(
    vision_encoder=dict(
        encoder=dict(
            _delete_=True,
            type="VisionTransformer",
            arch=dict(embed_dims=128, num_layers=3, num_heads=4, feedforward_channels=256),
            img_size=112,
            patch_size=16,
            out_type="raw",
        ),
        backbone=clip,
        concepts=f"{root}/concepts.safetensors",
    ),
    tokenizer=dict(name_or_path=f"{root}/bert"),
    decoder_head=dict(
        decoder=dict(
            med_config=dict(
                hidden_size=128,
                intermediate_size=512,
                num_attention_heads=4,
                num_hidden_layers=2,
                max_position_embeddings=64,
                # The words of data/toy/town/bert, and [DEC] and [ENC], which BLIP adds.
                vocab_size=512,
                encoder_width=128,
            )
        )
    ),
    prompt="",
)

resize = dict(type="mmpretrain.Resize", scale=(112, 112), interpolation="bicubic", backend="pillow")
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    dataset=dict(
        store=f"{root}/train_store",
        img_dir=f"{root}/synthetic",
        pipeline=[resize, _base_.pack],
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        store=f"{root}/val_store", img_dir=f"{root}/images", pipeline=[resize, _base_.pack]
    ),
)
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        store=f"{root}/test_store", img_dir=f"{root}/images", pipeline=[resize, _base_.pack]
    ),
)

# About 1,500 iterations, as configs/pcm_toy.py.
train_cfg = dict(max_epochs=16, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100),
]
default_hooks = dict(logger=dict(interval=20))

build_commands = "make_demo"
# The other files are declared by the classes of this package.
required_files = [dict(key="model.tokenizer.name_or_path", kind="TOKENIZER")]
