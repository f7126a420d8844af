"""Captioners, one file per system."""

from pcm_plugin.models.captioners.base import Captioner
from pcm_plugin.models.captioners.pcm_net import PCMNet
from pcm_plugin.models.captioners.prefix_lm import PrefixCaptioner
from pcm_plugin.models.captioners.syntic import SynTIC

__all__ = ["Captioner", "PCMNet", "PrefixCaptioner", "SynTIC"]
