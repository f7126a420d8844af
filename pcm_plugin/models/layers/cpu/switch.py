"""The switch between the kernels of this package and PyTorch's own."""

from torch import Tensor
from torch.compiler import is_compiling


def use_cpu_kernels(x: Tensor) -> bool:
    """Return whether the kernels of this package are used in place of PyTorch's.

    Args:
        x: The tensor to compute with.

    Returns:
        True for a tensor on the CPU, except while a function is being compiled, since the compiler
        fuses PyTorch's operations and cannot see into these kernels.
    """
    return x.device.type == "cpu" and not is_compiling()
