"""Functions that compute attention, by the names of `settings.ATTENTIONS`.

| name | what computes it |
| --- | --- |
| auto | torch's own choice for the device and the sizes |
| cudnn, flash, efficient, math | this one of torch's kernels, or an error where it can not |
| flash3 | FlashAttention-3 (arXiv 2407.08608), for Hopper cards |
| sage | SageAttention (arXiv 2410.02367): products in 8 bits, the only one here that rounds more |

The last two are taken from their packages, `flash_attn_interface` and `sageattention`, or from the Hub by the package
`kernels` (`pip install kernels`), which keeps what it downloads.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .errors import JoyImageError
from .settings import ATTENTIONS, check_attention

# (q, k, v), each (B, heads, tokens, head_dim) -> (B, query tokens, heads * head_dim)
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of (B, heads, tokens, head_dim); returns (B, query tokens, heads * head_dim)."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


# torch's choice of kernels is one for the process: of two threads that set it at once, the one that leaves last would
# put back what the other had set.
_choosing = threading.Lock()


def by_torch(q: Tensor, k: Tensor, v: Tensor, name: str) -> Tensor:
    """By the kernel of a name in `TORCH`. Raises `JoyImageError` where it does not take such tensors."""
    if torch.compiler.is_compiling():  # a lock would break the graph
        with sdpa_kernel(TORCH[name]):
            return attention(q, k, v)
    try:
        with _choosing, sdpa_kernel(TORCH[name]):
            return attention(q, k, v)
    except RuntimeError as error:
        if not str(error).startswith(NO_KERNEL):
            raise
        kind = str(q.dtype).removeprefix("torch.")
        raise JoyImageError(
            f"attention {name!r} does not take {kind} with {q.shape[-1]} numbers a head on {q.device.type}; "
            "choose auto, or another dtype"
        ) from error


TORCH = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
NO_KERNEL = ("No available kernel", "No viable backend")  # how torch says so, on CUDA and elsewhere
DEVICES = {"cudnn": ("cuda",), "efficient": ("cuda", "xpu"), "flash": ("cuda", "xpu", "cpu")}  # the rest runs anywhere


@dataclass(frozen=True)
class Package:
    """Where a kernel that torch lacks is found: a module of a package, or a repository of the Hub and its version.

    `least` and `most` are the compute capabilities of the cards that it runs on. `call` gives it (B, tokens, heads,
    head_dim) and takes the same.
    """

    module: str
    function: str
    repository: str
    version: int
    least: tuple[int, int]
    most: tuple[int, int]
    call: Callable[..., Any]

    def load(self) -> Callable[..., Any]:
        """The kernel's function. Raises `ImportError` where neither package is installed."""
        try:
            return getattr(importlib.import_module(self.module), self.function)
        except ImportError:
            kernels = importlib.import_module("kernels")
            return getattr(kernels.get_kernel(self.repository, version=self.version), self.function)


def flash3(function: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = function(q, k, v)
    return out[0] if isinstance(out, tuple) else out  # earlier versions give the log of the sums too


def sage(function: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return function(q, k, v, tensor_layout="NHD", is_causal=False)


PACKAGES = {
    "flash3": Package(
        "flash_attn_interface", "flash_attn_func", "kernels-community/flash-attn3", 1, (9, 0), (9, 9), flash3
    ),
    "sage": Package("sageattention", "sageattn", "SageAttention/sage-attention", 3, (8, 0), (99, 0), sage),
}


def by_package(q: Tensor, k: Tensor, v: Tensor, package: Package, function: Callable[..., Any]) -> Tensor:
    return package.call(function, *(x.transpose(1, 2) for x in (q, k, v))).flatten(2)


def attention_by_name(name: str, device: torch.device | str) -> Attention:
    """The attention of this name for a device.

    Raises `JoyImageError` for a name that does not exist, a device that has no such kernel, and a package that is not
    there.
    """
    check_attention(name)
    device = torch.device(device)
    if device.type not in DEVICES.get(name, (device.type,)):
        raise JoyImageError(f"attention {name!r} does not run on {device.type}; choose {choices(device)}")
    if name in TORCH:
        return partial(by_torch, name=name)
    if name in PACKAGES:
        return partial(by_package, package=PACKAGES[name], function=_load(name, device))
    return attention


def _load(name: str, device: torch.device) -> Callable[..., Any]:
    package = PACKAGES[name]
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if not package.least <= capability <= package.most:
        card = "cards of compute capability " + (
            f"{package.least[0]}.x" if package.most[0] == package.least[0] else f"{package.least[0]}.0 and newer"
        )
        raise JoyImageError(f"attention {name!r} is for {card}, not for {device}; choose {choices(device)}")
    try:
        return package.load()
    except ImportError:
        raise JoyImageError(
            f"attention {name!r} needs the package {package.module} or kernels, and neither can be imported: "
            f"install one (`pip install kernels`), or choose {choices(device)}"
        ) from None


def choices(device: torch.device) -> str:
    """The names that torch itself has for a device, for a message."""
    return ", ".join(n for n in ATTENTIONS if n not in PACKAGES and device.type in DEVICES.get(n, (device.type,)))
