# pcm make-dataset CAPTIONS --recipe recommended --out data/mine
#
# The recipe that the toy world suggests (docs/results.md says what is measured), with Stable
# Diffusion 1.5 and OpenAI's CLIP ViT-B/32; sd15_vitb32.py follows the paper. Differences:
# - four images per caption, with a lower guidance scale;
# - SynC assigns each caption to one of all images;
# - PCM-Net without the mix-up and the CLIP weights of the loss;
# - an average of the weights is validated and saved;
# - a small corpus is trained for more epochs.
# Re-ranking by CLIP is a setting of the trained captioner: pcm tune.
_base_ = "./sd15_vitb32.py"

generate = dict(guidance=2.0, images_per_caption=4)
refine = dict(_delete_=True, method="sync", pairs_per_caption=1)
training = dict(average_epochs=1.0, min_iterations=4500)
model = dict(
    neck=dict(selection="none"),
    loss=dict(use_clip_weight=False, gamma_type="none"),
)
