# python tools/test.py configs/pcm_coco2flickr30k_tt.py work_dirs/pcm_coco/best*.pth
#
# Cross-domain with target texts, COCO to Flickr30k: as pcm_coco2flickr30k.py, but the concepts are
# the frequent nouns of Flickr30k's own training captions (its images are not seen). That is what
# PCM-Net takes from target texts without training. Figures of this setting stand apart, as those of
# SynTIC-TT and IFCap-TT do; none is published for PCM-Net.
_base_ = "./pcm_coco2flickr30k.py"

# Not the target's usual file, which may hold the released list.
model = dict(neck=dict(concepts="data/flickr30k/vit_b32/concepts_of_captions.safetensors"))
