"""Models of the plugin; importing this registers all of them."""

from .captioners import PCMNet
from .decoders import SentenceDecoder
from .encoders import VisualSemanticEncoder
from .losses import CLIPWeightedCELoss
from .necks import GlobalPrefix, MixupOutput, PCMMixup

__all__ = [
    "CLIPWeightedCELoss",
    "GlobalPrefix",
    "MixupOutput",
    "PCMMixup",
    "PCMNet",
    "SentenceDecoder",
    "VisualSemanticEncoder",
]
