# pcm make-dataset CAPTIONS --recipe recommended_toy --out data/mine
#
# The recommended recipe with the diffusion model and the CLIP of the toy world.
_base_ = "./toy.py"

generate = dict(images_per_caption=4)
refine = dict(_delete_=True, method="sync", pairs_per_caption=1)
training = dict(average_epochs=1.0, min_iterations=4500)
model = dict(neck=dict(selection="none"), loss=dict(use_clip_weight=False, gamma_type="none"))
