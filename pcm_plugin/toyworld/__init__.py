"""The embedded default: a small world with its own CLIP and diffusion model."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
"""Folder of the shipped weights: ``clip`` (open_clip) and ``diffusion`` (diffusers)."""
