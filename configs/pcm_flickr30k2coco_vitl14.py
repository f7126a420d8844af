# python tools/test.py configs/pcm_flickr30k2coco_vitl14.py work_dirs/pcm_flickr30k_vitl14/best*.pth
#
# Cross-domain, Flickr30k to COCO, CLIP ViT-L/14: weights and vocabulary of Flickr30k, images and
# references of COCO. The concepts are those of COCO's own config. The paper: 61.3 CIDEr (Luo et
# al., ECCV 2024).
_base_ = "./pcm_flickr30k_vitl14.py"

model = dict(neck=dict(concepts="data/coco/vit_l14/concepts.safetensors"))
test_dataloader = dict(
    dataset=dict(store="data/coco/vit_l14/test_store", data_prefix="data/coco/images")
)
extra_datasets = [dict(root="data/coco", captions="data/coco/dataset_coco.json")]
