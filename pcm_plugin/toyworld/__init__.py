"""Toy world: small domains with captions, images, a CLIP model and a diffusion model."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
"""Folder of the packaged weights: ``clip`` (open_clip) and ``diffusion`` (diffusers)."""
