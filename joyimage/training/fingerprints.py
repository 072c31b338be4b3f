"""What tells a network's weights from others."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from ..memory.budget import ROTARY

SAMPLED = 64  # numbers of each tensor


def fingerprint(network: nn.Module, *more: str) -> str:
    """A hash of a network's weights: of all names, shapes and dtypes, and of some numbers from each tensor.

    It takes a moment where hashing 17 GB takes half a minute, and tells apart all that is likely to be confused:
    other weights, another format of the same weights, with and without a LoRA.
    """
    found = hashlib.blake2b(repr(more).encode(), digest_size=16)
    tensors = network.state_dict() | dict(network.named_buffers())  # those of LoRAs are in no state
    for name, tensor in tensors.items():
        if name.endswith(ROTARY):  # is computed, and by some versions of transformers twice
            continue
        flat = tensor.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // SAMPLED)][:SAMPLED].contiguous().cpu()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(some.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
