"""Necks: CLIP features to the tokens of a captioner."""

from pcm_plugin.models.necks.base import Neck
from pcm_plugin.models.necks.concept_bank import ConceptBank
from pcm_plugin.models.necks.entity_prompt import EntityPrompt
from pcm_plugin.models.necks.global_prefix import GlobalPrefix
from pcm_plugin.models.necks.object_prefix import ObjectPrefix
from pcm_plugin.models.necks.output import NeckOutput
from pcm_plugin.models.necks.pcm_mixup import PCMMixup

__all__ = [
    "ConceptBank",
    "EntityPrompt",
    "GlobalPrefix",
    "Neck",
    "NeckOutput",
    "ObjectPrefix",
    "PCMMixup",
]
