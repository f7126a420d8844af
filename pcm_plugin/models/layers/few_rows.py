"""Linear layers for products of few rows, on a CPU."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def arrange_for(module: Module, rows: int) -> Module:
    """Copy a module for many products of the same few rows.

    MKL rearranges the weights for each product, which for some tens of rows takes as long as the
    product or longer; this does so once. Without MKL, on another device or in another precision,
    and where gradients are wanted, the module is returned as it is.

    Args:
        module: In eval mode; its weights must not change while the copy is in use.
        rows: Rows of the products; with others the copy works too, no faster.

    Returns:
        A copy that shares all but the rearranged weights, for inference alone.
    """
    weight = next(module.parameters())
    if (
        not torch.backends.mkl.is_available()
        or not hasattr(torch.ops.mkl, "_mkl_linear")
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or (weight.device.type, weight.dtype) != ("cpu", torch.float32)
    ):
        return module
    return _copied(module, rows)


class _Arranged(nn.Module):
    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.linear, self.rows = linear, rows
        self.weight = torch.ops.mkl._mkl_reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, x: Tensor) -> Tensor:
        linear = self.linear
        return torch.ops.mkl._mkl_linear(x, self.weight, linear.weight, linear.bias, self.rows)


def _copied(module: Module, rows: int) -> Module:
    copied = copy.copy(module)
    copied._modules = {
        name: _Arranged(part, rows)
        if isinstance(part, nn.Linear)
        else None
        if part is None
        else _copied(part, rows)
        for name, part in module._modules.items()
    }
    return copied
