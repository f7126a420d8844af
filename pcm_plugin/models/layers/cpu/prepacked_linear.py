"""Linear layers whose weights are packed once for products of few rows."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from pcm_plugin.models.layers.cpu.switch import use_cpu_kernels

Module = TypeVar("Module", bound=nn.Module)


def prepack_linears(module: Module, rows: int) -> Module:
    """Return a copy of a module for many products with the same small number of rows.

    MKL repacks the weights of a linear layer for each product. For some tens of rows this takes as
    long as the product itself or longer; the copy does it once.

    Args:
        module: Module in eval mode. Its weights must not change while the copy is in use.
        rows: Number of rows of the products. Other numbers work too, but are not faster.

    Returns:
        A copy for inference that shares everything but the packed weights. The module itself where
        packing is not possible: without MKL, on another device, in another precision, or if
        gradients are enabled.
    """
    weight = next(module.parameters())
    if (
        not use_cpu_kernels(weight)
        or weight.dtype != torch.float32
        or torch.is_grad_enabled()
        or not torch.backends.mkl.is_available()
        or not hasattr(torch.ops.mkl, "_mkl_linear")
        # Autocast changes the dtype of products.
        or torch.mm(weight.new_ones(1, 1), weight.new_ones(1, 1)).dtype != torch.float32
    ):
        return module
    return _copy_with_prepacked(module, rows)


class _PrepackedLinear(nn.Module):
    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.linear, self.rows = linear, rows
        self.weight = torch.ops.mkl._mkl_reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, x: Tensor) -> Tensor:
        linear = self.linear
        return torch.ops.mkl._mkl_linear(x, self.weight, linear.weight, linear.bias, self.rows)


def _copy_with_prepacked(module: Module, rows: int) -> Module:
    copied = copy.copy(module)
    copied._modules = {
        name: None if child is None else _prepack(child, rows)
        for name, child in module._modules.items()
    }
    return copied


def _prepack(module: nn.Module, rows: int) -> nn.Module:
    # A subclass of Linear, or a layer with hooks, may compute something else.
    if type(module) is nn.Linear and not (module._forward_hooks or module._forward_pre_hooks):
        return _PrepackedLinear(module, rows)
    return _copy_with_prepacked(module, rows)
