"""Checkpoints that a killed run leaves whole."""

from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook

from pcm_plugin.datasets.durable import write_bytes
from pcm_plugin.registry import HOOKS


@register_backend("pcm_plugin.durable", force=True)
class DurableBackend(LocalBackend):
    """MMEngine's local files, but written beside, synced and renamed."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``, which holds the old bytes or the new ones, never some."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, obj)


@HOOKS.register_module()
class DurableCheckpointHook(CheckpointHook):
    """MMEngine's checkpoint hook through :class:`DurableBackend`.

    MMEngine writes a checkpoint in place, and writes the newest one a second time when its
    validation is the best so far: a run killed at that moment could not be resumed.

    Args:
        **kwargs: See :class:`mmengine.hooks.CheckpointHook`; ``backend_args`` is taken.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(backend_args=dict(backend="pcm_plugin.durable"), **kwargs)
