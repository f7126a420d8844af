"""Mixed precision with bfloat16 on CPUs and GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper

from pcm_plugin.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs forward and loss under bfloat16 autocast.

    MMEngine's ``AmpOptimWrapper`` only supports accelerators. bfloat16 has the range of float32, so
    the loss needs no scaling and checkpoints contain no additional state.
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        """Enter autocast on the device of the model, within the context of the base class."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
