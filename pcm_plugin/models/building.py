"""Build the parts of a model."""

from typing import Any

from torch import nn

from pcm_plugin.registry import MODELS


def build_module(module: dict | nn.Module) -> Any:
    """Return a module as it is, or build it from its config."""
    return module if isinstance(module, nn.Module) else MODELS.build(module)
