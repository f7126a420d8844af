"""Models of the plugin; importing this registers all of them."""

from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.captioner_file import load_captioner
from pcm_plugin.models.captioners import PCMNet, PrefixCaptioner, SynTIC
from pcm_plugin.models.decoders import SentenceDecoder
from pcm_plugin.models.encoders import MixupVisionEncoder, PrefixMapper, VisualSemanticEncoder
from pcm_plugin.models.losses import CLIPWeightedCELoss
from pcm_plugin.models.necks import GlobalPrefix, NeckOutput, ObjectPrefix, PCMMixup

__all__ = [
    "CLIPWeightedCELoss",
    "GlobalPrefix",
    "MixupVisionEncoder",
    "NeckOutput",
    "ObjectPrefix",
    "OpenCLIPBackbone",
    "PCMMixup",
    "PCMNet",
    "PrefixCaptioner",
    "PrefixMapper",
    "SentenceDecoder",
    "SynTIC",
    "VisualSemanticEncoder",
    "load_captioner",
]
