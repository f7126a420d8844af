"""Models of the plugin; importing this registers all of them."""

from .backbones import OpenCLIPBackbone
from .captioners import MixupVisionEncoder, PCMNet, PrefixCaptioner, SynTIC
from .decoders import SentenceDecoder
from .encoders import PrefixMapper, VisualSemanticEncoder
from .losses import CLIPWeightedCELoss
from .necks import GlobalPrefix, MixupOutput, ObjectPrefix, PCMMixup

__all__ = [
    "CLIPWeightedCELoss",
    "GlobalPrefix",
    "MixupOutput",
    "MixupVisionEncoder",
    "ObjectPrefix",
    "OpenCLIPBackbone",
    "PCMMixup",
    "PCMNet",
    "PrefixCaptioner",
    "PrefixMapper",
    "SentenceDecoder",
    "SynTIC",
    "VisualSemanticEncoder",
]
