# pcm make-dataset CAPTIONS --recipe sd15_vitb32_sync --out data/mine
#
# Stable Diffusion 1.5 and CLIP ViT-B/32, with pairs chosen by SynC as released for PCM-Net:
# SigLIP 2 assigns captions to images, a sentence encoder compares captions, and the score of a
# pair, by which the loss weights it, is 5 times SigLIP 2's cosine.
_base_ = "./sd15_vitb32.py"

assign = dict(model="ViT-B-16-SigLIP2-256", pretrained="webli", batch_size=256)
refine = dict(
    _delete_=True,
    method="sync",
    num_images=15,
    num_captions=2,
    keep=0.9,
    sentence_encoder="sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    score_scale=5.0,
)
