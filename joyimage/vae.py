"""The Wan 2.1 VAE (arXiv 2503.20314) for single images, with 2-D convolutions only.

A causal 3-D convolution sees one frame behind zeros, so it equals a 2-D convolution with the last temporal slice of its
kernel (`checkpoints.vae_keys.image_kernels` takes it); temporal resampling does nothing. Attribute names are the keys
of the original checkpoint. Weights and activations are in channels_last, which CPUs and tensor cores like best.

Encoder and decoder each have a fine part, pure convolution from or to pixels, which takes nearly all of the memory,
and a coarse part at the size of the latent, with the attention over the whole image. Only the fine part is tiled, and a
tile reads as far around itself as its convolutions see: the result with tiles is the result without, and has no seams.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import WanVAEConfig
from .errors import JoyImageError
from .operations import Factory, Operations

IMAGE_CHANNELS = 3


class RMSNorm(nn.Module):
    """x / |x| * sqrt(C) * gamma over the channels of (B, C, H, W); |x| is at least 1e-12 and computed in float32.

    With `in_place` nothing else needs the input, which may then be overwritten unless a gradient needs it.
    """

    def __init__(self, channels: int, *, in_place: bool = False, dtype=None, device=None):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, dtype=dtype, device=device))
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        channels, gamma = x.shape[1], self.gamma.to(x)
        if x.device.type == "cpu" and x.dtype == torch.float32:
            # F.rms_norm is not fused on CPUs: 5 times slower here, and a second copy of x
            scale = math.sqrt(channels) / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)
            x = x.mul_(scale) if self.in_place and not x.requires_grad else x * scale
            return x.mul_(gamma.view(-1, 1, 1))
        x = x.movedim(1, -1)  # (B, H, W, C), as it lies in memory
        return F.rms_norm(x, (channels,), gamma, eps=1e-24 / channels).movedim(-1, 1)


class ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, *, operations, dtype=None, device=None):
        super().__init__()
        factory: Factory = {"dtype": dtype, "device": device}
        self.residual = nn.Sequential(
            RMSNorm(channels_in, **factory),
            nn.SiLU(inplace=True),
            operations.Conv2d(channels_in, channels_out, 3, padding=1, **factory),
            RMSNorm(channels_out, in_place=True, **factory),
            nn.SiLU(inplace=True),
            nn.Identity(),  # the dropout of the checkpoint's key numbering
            operations.Conv2d(channels_out, channels_out, 3, padding=1, **factory),
        )
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else operations.Conv2d(channels_in, channels_out, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x).add_(self.shortcut(x))


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, with one head as wide as the channels."""

    def __init__(self, channels: int, *, operations, dtype=None, device=None):
        super().__init__()
        factory: Factory = {"dtype": dtype, "device": device}
        self.norm = RMSNorm(channels, **factory)
        self.to_qkv = operations.Conv2d(channels, 3 * channels, 1, **factory)
        self.proj = operations.Conv2d(channels, channels, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        qkv = rearrange(self.to_qkv(self.norm(x)), "b c h w -> b 1 (h w) c")
        q, k, v = qkv.chunk(3, dim=-1)  # not in the pattern, whose gradient would lie in memory differently
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(out, "b 1 (h w) c -> b c h w", h=x.shape[2])).add_(x)


class Resample(nn.Module):
    """Half or twice the size. Upsampling halves the channels."""

    def __init__(self, channels: int, *, up: bool, operations, dtype=None, device=None):
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        if up:
            scale = nn.Upsample(scale_factor=2, mode="nearest-exact")
            conv = operations.Conv2d(channels, channels // 2, 3, padding=1, **factory)
        else:
            scale = nn.ZeroPad2d((0, 1, 0, 1))
            conv = operations.Conv2d(channels, channels, 3, stride=2, **factory)
        self.resample = nn.Sequential(scale, conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(x)


def _middle(channels: int, **factory) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(channels, channels, **factory),
        AttentionBlock(channels, **factory),
        ResidualBlock(channels, channels, **factory),
    )


def _head(channels_in: int, channels_out: int, *, operations, dtype=None, device=None) -> nn.Sequential:
    factory: Factory = {"dtype": dtype, "device": device}
    return nn.Sequential(
        RMSNorm(channels_in, in_place=True, **factory),
        nn.SiLU(inplace=True),
        operations.Conv2d(channels_in, channels_out, 3, padding=1, **factory),
    )


class VAEEncoder(nn.Module):
    """(B, 3, H, W) -> mean and log variance of the latent, (B, 2 z_dim, H/8, W/8).

    `halo` is how many latent pixels beyond its own the fine part of a tile sees: 5 in the published model.
    """

    def __init__(self, config: WanVAEConfig, *, operations, dtype=None, device=None):
        super().__init__()
        factory = {"operations": operations, "dtype": dtype, "device": device}
        widths = [config.base_dim * m for m in config.dim_mult]
        blocks, last = config.num_res_blocks, len(widths) - 1
        self.conv1 = operations.Conv2d(IMAGE_CHANNELS, config.base_dim, 3, padding=1, dtype=dtype, device=device)
        layers = []
        for level, (channels_in, width) in enumerate(zip([config.base_dim, *widths], widths, strict=False)):
            layers += [ResidualBlock(channels_in if i == 0 else width, width, **factory) for i in range(blocks)]
            if level < last:
                layers.append(Resample(width, up=False, **factory))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(widths[-1], **factory)
        self.head = _head(widths[-1], 2 * config.z_dim, **factory)
        self._fine_layers = last * (blocks + 1)
        # in pixels: conv1, then at each level two convolutions a block and the downsampling
        seen = 1 + sum((2 * blocks + 1) * 2**level for level in range(last))
        self.halo = math.ceil(seen / config.spatial_factor)

    def fine(self, image: Tensor) -> Tensor:
        return self.downsamples[: self._fine_layers](self.conv1(image))

    def coarse(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.downsamples[self._fine_layers :](x)))

    def forward(self, image: Tensor) -> Tensor:
        return self.coarse(self.fine(image))


class VAEDecoder(nn.Module):
    """(B, z_dim, h, w) -> (B, 3, 8h, 8w).

    `halo` is how many latent pixels beyond its own the fine part of a tile sees: 7 in the published model.
    """

    def __init__(self, config: WanVAEConfig, *, operations, dtype=None, device=None):
        super().__init__()
        factory = {"operations": operations, "dtype": dtype, "device": device}
        widths = [config.base_dim * m for m in reversed(config.dim_mult)]
        blocks, last = config.num_res_blocks + 1, len(widths) - 1
        self.conv1 = operations.Conv2d(config.z_dim, widths[0], 3, padding=1, dtype=dtype, device=device)
        self.middle = _middle(widths[0], **factory)
        layers, channels_in = [], widths[0]
        for level, width in enumerate(widths):
            layers += [ResidualBlock(channels_in if i == 0 else width, width, **factory) for i in range(blocks)]
            if level < last:
                layers.append(Resample(width, up=True, **factory))
                channels_in = width // 2
        self.upsamples = nn.Sequential(*layers)
        self.head = _head(widths[-1], IMAGE_CHANNELS, **factory)
        self._coarse_layers = blocks
        # in latent pixels: at each finer level the upsampling and two convolutions a block, then the head
        seen = sum((2 * blocks + 1) / 2**level for level in range(1, last + 1)) + 1 / 2**last
        self.halo = math.ceil(seen)

    def coarse(self, latent: Tensor) -> Tensor:
        return self.upsamples[: self._coarse_layers](self.middle(self.conv1(latent)))

    def fine(self, x: Tensor) -> Tensor:
        return self.head(self.upsamples[self._coarse_layers :](x))

    def forward(self, latent: Tensor) -> Tensor:
        return self.fine(self.coarse(latent))


class WanVAE(nn.Module):
    """The VAE of JoyAI-Image: image <-> normalised latent, 8 times smaller.

    `operations` has the class `Conv2d`; a host may inject its own. The dtype of the weights is the compute dtype.
    Load the weights that `checkpoints.vae_keys.image_kernels` gives; their channels_last layout is kept by
    `load_state_dict` with and without `assign`.
    """

    def __init__(self, config: WanVAEConfig | None = None, *, operations: Operations = nn, dtype=None, device=None):
        super().__init__()
        self.config = config or WanVAEConfig()
        factory, z_dim = {"dtype": dtype, "device": device}, self.config.z_dim
        self.encoder = VAEEncoder(self.config, operations=operations, **factory)
        self.conv1 = operations.Conv2d(2 * z_dim, 2 * z_dim, 1, **factory)
        self.conv2 = operations.Conv2d(z_dim, z_dim, 1, **factory)
        self.decoder = VAEDecoder(self.config, operations=operations, **factory)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch declares no such overload

    @torch.no_grad()
    def encode(self, image: Tensor, tile: int | None = None) -> Tensor:
        """Encode images to the normalised mean of their posterior.

        `image` is (B, 3, H, W) of any floating dtype in [-1, 1], H and W multiples of 8; the result
        (B, 16, 1, H/8, W/8) float32. `tile` saves memory, see `decode`. The mean and not a sample: sampling, as
        Diffusers does from the global generator, moves the edited image by up to 0.03 of full scale at the same seed.

        Raises `JoyImageError` for another shape or dtype, or a tile of fewer than 8 pixels.
        """
        factor = self.config.spatial_factor
        if image.ndim != 4 or image.shape[1] != IMAGE_CHANNELS or not image.is_floating_point():
            raise JoyImageError(
                f"the VAE encodes floating-point images (B, {IMAGE_CHANNELS}, H, W) in [-1, 1], got {_describe(image)}"
            )
        if any(side == 0 or side % factor for side in image.shape[2:]):
            raise JoyImageError(
                f"an image of {image.shape[2]}x{image.shape[3]} pixels cannot be encoded: height and width must be "
                f"multiples of {factor}; crop or resize it"
            )
        x = image.to(self.conv1.weight.dtype, memory_format=torch.channels_last)
        x = self._tiled(self.encoder.fine, x, tile, unit_in=factor, unit_out=1, halo=self.encoder.halo)
        mean, _ = self.conv1(self.encoder.coarse(x)).float().chunk(2, dim=1)
        latents_mean, latents_std = self._statistics(mean)
        return ((mean - latents_mean) / latents_std).contiguous().unsqueeze(2)

    @torch.no_grad()
    def decode(self, latent: Tensor, tile: int | None = None) -> Tensor:
        """Decode normalised latents (B, 16, 1, h, w) to images (B, 3, 8h, 8w), float32, clamped to [-1, 1].

        With `tile` the convolutions at the image's size run on one piece of at most tile x tile pixels at a time, plus
        56 on each side that neighbours share (40 when encoding). The result is that of a whole run, and memory falls
        with the area of a piece. None, or a tile as large as the image, runs it whole.

        Raises `JoyImageError` for another shape or dtype, or a tile of fewer than 8 pixels.
        """
        shape, z_dim = latent.shape, self.config.z_dim
        if latent.ndim != 5 or shape[1:3] != (z_dim, 1) or 0 in shape or not latent.is_floating_point():
            raise JoyImageError(
                f"the VAE decodes floating-point latents (B, {z_dim}, 1, h, w), got {_describe(latent)}"
            )
        latents_mean, latents_std = self._statistics(latent)
        x = latent.squeeze(2).float() * latents_std + latents_mean
        x = x.to(self.conv2.weight.dtype, memory_format=torch.channels_last)
        x = self.decoder.coarse(self.conv2(x))
        factor = self.config.spatial_factor
        x = self._tiled(self.decoder.fine, x, tile, unit_in=1, unit_out=factor, halo=self.decoder.halo)
        return x.float().clamp_(-1, 1).contiguous()

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, (1, z_dim, 1, 1) float32; no buffers, which `.to` would round."""
        pair = torch.tensor(
            [self.config.latents_mean, self.config.latents_std], dtype=torch.float32, device=like.device
        )
        mean, std = pair.view(2, 1, -1, 1, 1).unbind()
        return mean, std

    def _tiled(self, network, x: Tensor, tile: int | None, *, unit_in: int, unit_out: int, halo: int) -> Tensor:
        if tile is None:
            return network(x)
        factor = self.config.spatial_factor
        if tile < factor:
            raise JoyImageError(f"a tile of {tile} pixels is too small: at least {factor}, better 256 or more")
        return run_tiled(network, x, tile=tile // factor, unit_in=unit_in, unit_out=unit_out, halo=halo)


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"


class Span(NamedTuple):
    """One tile along one axis, in units: what it reads, which part of its output is kept, and where that goes."""

    read: slice
    keep: slice
    place: slice


def spans(length: int, tile: int, halo: int) -> list[Span]:
    """Cut `length` into nearly equal pieces of at most `tile`, each of which reads `halo` more on inner sides."""
    size = math.ceil(length / math.ceil(length / tile))
    pieces = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = max(0, start - halo)
        read = slice(first, min(length, stop + halo))
        pieces.append(Span(read, slice(start - first, stop - first), slice(start, stop)))
    return pieces


def run_tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, *, tile: int, unit_in: int, unit_out: int, halo: int
) -> Tensor:
    """Run a convolutional `network` tile by tile; equals `network(x)` if no output sees further than `halo` units.

    A unit is `unit_in` pixels of `x` and `unit_out` of the result: n x m units turn (B, C, n * unit_in, m * unit_in)
    into (B, D, n * unit_out, m * unit_out). `tile` and `halo` count units.
    """
    height, width = x.shape[2] // unit_in, x.shape[3] // unit_in
    rows, columns = spans(height, tile, halo), spans(width, tile, halo)
    if len(rows) == len(columns) == 1:
        return network(x)
    out = x.new_empty(0)  # until there is a piece, which tells its channels
    for row, column in product(rows, columns):
        piece = network(_crop(x, row.read, column.read, unit_in).contiguous(memory_format=torch.channels_last))
        if not out.numel():
            shape = (*piece.shape[:2], height * unit_out, width * unit_out)
            out = torch.empty(shape, dtype=piece.dtype, device=piece.device, memory_format=torch.channels_last)
        _crop(out, row.place, column.place, unit_out).copy_(_crop(piece, row.keep, column.keep, unit_out))
    return out


def _crop(x: Tensor, rows: slice, columns: slice, unit: int) -> Tensor:
    return x[:, :, rows.start * unit : rows.stop * unit, columns.start * unit : columns.stop * unit]
