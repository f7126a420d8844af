"""Settings of the CaptionMetric in a config."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import METRICS, DefaultScope

from pcm_plugin.engine.config_arguments import listed
from pcm_plugin.engine.config_modules import iter_modules
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.formats.languages import ENGLISH


def caption_metric_settings(cfg: Config, loop: str) -> Mapping[str, Any]:
    """Return the settings of the first CaptionMetric of a loop; empty if it has none.

    Args:
        cfg: The final config.
        loop: ``'val'`` or ``'test'``.
    """
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        for place, part in listed(f"{loop}_evaluator", cfg.get(f"{loop}_evaluator")):
            if isinstance(part, Mapping):
                for module in iter_modules(part, place, METRICS):
                    if issubclass(module.cls, CaptionMetric):
                        return module.settings
    return {}


def captions_language(cfg: Config, loops: Iterable[str]) -> str:
    """Return the language in which captions are scored.

    Args:
        cfg: The final config.
        loops: Loops, ``'val'`` and ``'test'``; the first that has a CaptionMetric counts.

    Returns:
        The ``language`` of the metric; ``'en'``, its default, if there is no metric.
    """
    for loop in loops:
        if settings := caption_metric_settings(cfg, loop):
            return settings.get("language", ENGLISH)
    return ENGLISH
