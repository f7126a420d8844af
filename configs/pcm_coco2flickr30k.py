# python tools/test.py configs/pcm_coco2flickr30k.py work_dirs/pcm_coco/best*.pth
#
# Cross-domain, COCO to Flickr30k, CLIP ViT-B/32: weights and vocabulary of COCO, images and
# references of Flickr30k. The concepts are those of Flickr30k's own config: for the paper's setting
# import the released list there. The paper: 45.5 CIDEr (Luo et al., ECCV 2024).
_base_ = "./pcm_coco.py"

model = dict(neck=dict(concepts="data/flickr30k/vit_b32/concepts.safetensors"))
test_dataloader = dict(
    dataset=dict(store="data/flickr30k/vit_b32/test_store", data_prefix="data/flickr30k/images")
)
extra_datasets = [dict(root="data/flickr30k", captions="data/flickr30k/dataset_flickr30k.json")]
