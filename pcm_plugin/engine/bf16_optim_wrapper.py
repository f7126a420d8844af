"""Mixed precision where MMEngine's own wrapper refuses to work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper

from pcm_plugin.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward and loss under bfloat16 autocast, on a CPU as well as on a GPU.

    MMEngine's ``AmpOptimWrapper`` is for accelerators only. bfloat16 has float32's range, so that
    no loss scaling is needed and checkpoints hold nothing more.
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        """Add autocast on the model's device to the context of the base class."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
