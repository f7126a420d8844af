# python tools/test.py configs/pcm_flickr30k2coco.py work_dirs/pcm_flickr30k/best*.pth
#
# Cross-domain, Flickr30k to COCO, CLIP ViT-B/32: weights and vocabulary of Flickr30k, images and
# references of COCO. The concepts are those of COCO's own config. The paper: 54.9 CIDEr (Luo et
# al., ECCV 2024).
_base_ = "./pcm_flickr30k.py"

model = dict(neck=dict(concepts="data/coco/vit_b32/concepts.safetensors"))
test_dataloader = dict(
    dataset=dict(store="data/coco/vit_b32/test_store", data_prefix="data/coco/images")
)
extra_datasets = [dict(root="data/coco", captions="data/coco/dataset_coco.json")]
