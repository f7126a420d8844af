"""Losses of captioners."""

from pcm_plugin.models.losses.clip_weighted_ce import CLIPWeightedCELoss

__all__ = ["CLIPWeightedCELoss"]
