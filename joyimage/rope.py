"""3-D rotary position embedding of image tokens (RoFormer, arXiv 2104.09864; text tokens get none)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from .kitchen import has_operators


def frequencies(
    grids: Sequence[tuple[int, int]],
    rope_dims: tuple[int, int, int],
    theta: float,
    device: torch.device | str | None = None,
) -> Tensor:
    """Cosines and sines that rotate the channel pairs of each image token, as (N, head_dim / 2, 2) float32.

    `grids` holds (rows, columns) of patches for the target, then for each reference. The target has t = 0,
    reference i has t = i + 1; rows and columns start at 0 in every image. Angles are float32 products of
    position and `theta ** (-2k / dim)`, as the checkpoints were trained. Steps of one run share one table.
    """
    return _table(tuple(grids), rope_dims, theta, torch.empty(0, device=device).device)


@functools.lru_cache(maxsize=4)
def _table(grids: tuple[tuple[int, int], ...], rope_dims, theta: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # made in inference mode it could not be used in training
        angles = torch.cat([_angles(t, grid, rope_dims, theta, device) for t, grid in enumerate(grids)])
        return torch.stack([angles.cos(), angles.sin()], dim=-1)


def _angles(t, grid, rope_dims, theta, device) -> Tensor:
    rows, columns = grid
    axes = torch.meshgrid(
        torch.tensor([t], dtype=torch.float32, device=device),
        torch.arange(rows, dtype=torch.float32, device=device),
        torch.arange(columns, dtype=torch.float32, device=device),
        indexing="ij",
    )
    angles = []
    for positions, dim in zip(axes, rope_dims, strict=True):
        exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim
        angles.append(torch.outer(positions.flatten(), 1.0 / theta**exponents))  # (rows * columns, dim / 2)
    return torch.cat(angles, dim=1)  # (rows * columns, head_dim / 2)


def rotate(x: Tensor, freqs: Tensor) -> Tensor:
    """Rotate interleaved channel pairs (x0, x1) of `x` (…, N, heads, head_dim) by `freqs`; gives float32.

    One complex product: half the time of separate sines and cosines, and no temporaries of twice the size. A compiler
    fuses the separate ones, and has nothing for complex numbers.
    """
    pairs = x.float().unflatten(-1, (-1, 2))  # (…, N, heads, head_dim / 2, 2)
    freqs = freqs[:, None]
    if torch.compiler.is_compiling():
        (a, b), (cos, sin) = pairs.unbind(-1), freqs.unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(freqs)).flatten(-2)


class Rotary(Protocol):
    """The norm of queries or keys and their rotation, as one operation that a host or a package may bring."""

    def angles(self, freqs: Tensor) -> Tensor:
        """What `frequencies` gives, (N, head_dim / 2, 2), in the form that is wanted; tokens come first."""
        ...

    def __call__(self, x: Tensor, norm: nn.Module, angles: Tensor) -> Tensor:
        """x (B, N, heads, head_dim), normalised by `norm` and rotated; in the dtype of `x` or in float32."""
        ...


class TorchRotary:
    """Two steps of torch's own."""

    def angles(self, freqs: Tensor) -> Tensor:
        return freqs

    def __call__(self, x: Tensor, norm: nn.Module, angles: Tensor) -> Tensor:
        return rotate(norm(x), angles)


NORM_AND_ROTATION = "rms_rope1"  # comfy-kitchen's operator


class KitchenRotary:
    """One kernel of comfy-kitchen, which reads and writes each number once."""

    def angles(self, freqs: Tensor) -> Tensor:
        """Matrices (N, head_dim / 2, 2, 2)."""
        cos, sin = freqs.unbind(-1)
        return torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)

    def __call__(self, x: Tensor, norm: nn.Module, angles: Tensor) -> Tensor:
        with self.scale(norm, x) as scale:
            return torch.ops.comfy_kitchen.rms_rope1(x, angles[None, :, None], scale, norm.eps)

    @contextmanager
    def scale(self, norm: nn.Module, x: Tensor) -> Iterator[Tensor]:
        """The norm's weight (head_dim,), where and in the dtype that `x` is."""
        weight = norm.weight
        assert isinstance(weight, Tensor)
        yield weight.to(x)


def rotary_for(device: torch.device, kitchen: Callable[[], Rotary] = KitchenRotary) -> Rotary:
    """comfy-kitchen's on a CUDA device where it is installed, else torch's, which alone has a derivative."""
    kernel = device.type == "cuda" and not torch.is_grad_enabled() and has_operators(NORM_AND_ROTATION)
    return kitchen() if kernel else TorchRotary()
