# python tools/test.py configs/pcm_flickr30k2coco_tt.py work_dirs/pcm_flickr30k/best*.pth
#
# Cross-domain with target texts, Flickr30k to COCO: as pcm_flickr30k2coco.py, but the concepts are
# the frequent nouns of COCO's own training captions (its images are not seen). That is what PCM-Net
# takes from target texts without training. Figures of this setting stand apart, as those of SynTIC-
# TT and IFCap-TT do; none is published for PCM-Net. The published concepts are COCO's nouns
# already: with these imported, pcm_flickr30k2coco.py differs by whose list of them it is.
_base_ = "./pcm_flickr30k2coco.py"

# Not the target's usual file, which may hold the released list.
model = dict(neck=dict(concepts="data/coco/vit_b32/concepts_of_captions.safetensors"))
