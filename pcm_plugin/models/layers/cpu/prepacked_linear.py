"""Linear layers for products of few rows, on a CPU."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def prepack_linears(module: Module, rows: int) -> Module:
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
        (weight.device.type, weight.dtype) != ("cpu", torch.float32)
        or torch.is_grad_enabled()
        or not torch.backends.mkl.is_available()
        or not hasattr(torch.ops.mkl, "_mkl_linear")
        # Under autocast a product is of another type.
        or torch.mm(weight.new_ones(1, 1), weight.new_ones(1, 1)).dtype != torch.float32
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
    parts = module._modules.items()
    copied._modules = {
        name: None if part is None else _with_parts(part, rows) for name, part in parts
    }
    return copied


def _with_parts(part: nn.Module, rows: int) -> nn.Module:
    # What only derives from a linear layer, or has hooks, does something else.
    if type(part) is nn.Linear and not (part._forward_hooks or part._forward_pre_hooks):
        return _Arranged(part, rows)
    return _copied(part, rows)
