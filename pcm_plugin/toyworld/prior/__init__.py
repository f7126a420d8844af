"""How the toy world's CLIP and diffusion model are trained and measured."""
