"""Training and evaluation of the toy world's CLIP and diffusion models."""
