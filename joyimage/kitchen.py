"""comfy-kitchen, an optional package of kernels that ComfyUI brings: whether what is wanted of it is there.

Its kernels are called as operators, `torch.ops.comfy_kitchen`: a compiler and fake tensors take an operator whole,
where some functions of the package choose an implementation in Python.
"""

from __future__ import annotations

import functools
import importlib

import torch


@functools.cache
def has_operators(*names: str) -> bool:
    """Whether comfy-kitchen is installed, in a version that has these operators."""
    try:
        importlib.import_module("comfy_kitchen")
    except ImportError:  # not there, or built for another torch
        return False
    return all(hasattr(torch.ops.comfy_kitchen, name) for name in names)


def has_cuda_kernels(*names: str) -> bool:
    """Whether it has these operators, and its kernels for CUDA are in use: a build may lack them, and a program may
    have switched them off.
    """
    if not has_operators(*names):
        return False
    from comfy_kitchen.registry import registry

    return registry.is_available("cuda")
