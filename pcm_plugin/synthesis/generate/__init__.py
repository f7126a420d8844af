"""Synthetic images of captions, by a diffusion model."""
