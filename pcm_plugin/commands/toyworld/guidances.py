"""Guidance scales of the toy world's diffusion model."""

GUIDANCES = (2.0, 3.5, 5.0, 7.5)
"""Guidance scales that are compared."""
