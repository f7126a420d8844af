"""Kernels that are faster on a CPU than PyTorch's own.

The plain layers ask :func:`~pcm_plugin.models.layers.cpu.switch.use_cpu_kernels` whether to call
them. They compute the same functions; only the random numbers of dropout come from another
generator.
"""
