"""Sizes of the networks, inferred from the shapes in a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

TIME_CHANNELS = 256  # of the sinusoids that the MMDiT sees the time as


def count_blocks(names: Collection[str], prefix: str) -> int:
    """Number of consecutive blocks `prefix.0`, `prefix.1`, … among `names`.

    Raises `CheckpointError` for a number beyond that of the names: what has that many blocks would be built.
    """
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    largest = max((int(m[1]) for name in names if (m := pattern.match(name))), default=-1)
    if largest >= len(names):
        raise CheckpointError(f"it numbers a block {prefix}.{largest} among {len(names)} tensors")
    return largest + 1


@dataclass(frozen=True)
class MMDiTConfig:
    """Sizes of the MMDiT. The defaults are JoyAI-Image's (arXiv 2605.04128): 40 blocks, 16B parameters.

    `rope_dims` are the channels of a head that rotate with (t, h, w). `theta` is 10000 in every
    published checkpoint; the 256 that Diffusers has as its class default is not what they use.
    """

    hidden_size: int = 4096
    num_heads: int = 32
    num_layers: int = 40
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    mlp_size: int = 16384
    patch_size: tuple[int, int, int] = (1, 2, 2)
    rope_dims: tuple[int, int, int] = (16, 56, 56)
    theta: float = 10000.0

    def __post_init__(self):
        if self.hidden_size % self.num_heads:
            raise CheckpointError(f"hidden size {self.hidden_size} is not a multiple of {self.num_heads} heads")
        dims = self.rope_dims
        if len(dims) != 3 or sum(dims) != self.head_dim or any(d % 2 or d < 0 for d in dims):
            raise CheckpointError(
                f"rope_dims {dims} must be three even numbers that add up to the head's {self.head_dim}"
            )
        if not 1 < self.theta < math.inf:
            raise CheckpointError(f"theta, the base of the rotary embedding, is {self.theta}, not a number above 1")
        if self.patch_size[0] != 1:
            raise CheckpointError(f"patch size {self.patch_size}: only patches of one frame are supported")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @classmethod
    def from_shapes(cls, shapes: Shapes, **overrides) -> MMDiTConfig:
        """Read the sizes from the shapes of a state dict in Diffusers' naming.

        `overrides` are what shapes cannot tell (`rope_dims`, `theta`), from a `config.json` where there is one.
        Raises `CheckpointError` if a key is missing from which sizes are read.
        """
        try:
            hidden, in_channels, *patch = shapes["img_in.weight"]
            (head_dim,) = shapes["double_blocks.0.attn.img_attn_q_norm.weight"]
            mlp_size = shapes["double_blocks.0.img_mlp.net.0.proj.weight"][0]
            text_dim = shapes["condition_embedder.text_embedder.linear_1.weight"][1]
            out_features = shapes["proj_out.weight"][0]
        except KeyError as error:
            raise CheckpointError(f"not a JoyImage MMDiT: the key {error} is missing") from None
        except (ValueError, IndexError):
            raise CheckpointError("not a JoyImage MMDiT: a weight or a norm has an unexpected rank") from None
        if len(patch) != 3 or head_dim < 1 or hidden % head_dim or out_features % (patch[0] * patch[1] * patch[2]):
            raise CheckpointError(
                f"not a JoyImage MMDiT: img_in.weight {tuple(shapes['img_in.weight'])}, head size {head_dim} "
                f"and proj_out.weight {tuple(shapes['proj_out.weight'])} do not fit together"
            )
        return cls(
            **{
                "hidden_size": hidden,
                "num_heads": hidden // head_dim,
                "num_layers": count_blocks(shapes, "double_blocks"),
                "in_channels": in_channels,
                "out_channels": out_features // (patch[0] * patch[1] * patch[2]),
                "text_dim": text_dim,
                "mlp_size": mlp_size,
                "patch_size": tuple(patch),
                "rope_dims": default_rope_dims(head_dim),
                **overrides,
            }
        )


def default_rope_dims(head_dim: int) -> tuple[int, int, int]:
    """An eighth of the head for t and the rest halved for h and w, all even: (16, 56, 56) at 128."""
    if head_dim % 2:
        raise CheckpointError(f"a head of {head_dim} channels cannot rotate in pairs")
    t = head_dim // 8
    while t % 2 or (head_dim - t) % 4:
        t += 1
    return t, (head_dim - t) // 2, (head_dim - t) // 2


# Per-channel statistics of Wan 2.1's latents, as in its published configuration.
# fmt: off
WAN_LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
WAN_LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on


@dataclass(frozen=True)
class WanVAEConfig:
    """Sizes of the Wan VAE. The defaults are Wan 2.1's (arXiv 2503.20314): 127M parameters with its
    3-D kernels, latents 8x smaller than the image.

    `latents_mean` and `latents_std` normalise the latents, one number for each of the `z_dim` channels.
    """

    base_dim: int = 96
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_dim: int = 16
    latents_mean: tuple[float, ...] = WAN_LATENTS_MEAN
    latents_std: tuple[float, ...] = WAN_LATENTS_STD

    def __post_init__(self):
        counts = len(self.latents_mean), len(self.latents_std)
        if counts != (self.z_dim, self.z_dim):
            raise CheckpointError(
                f"a VAE with {self.z_dim} latent channels needs {self.z_dim} latents_mean and latents_std, not {counts}"
            )
        if not all(map(math.isfinite, self.latents_mean)) or not all(0 < std < math.inf for std in self.latents_std):
            raise CheckpointError(
                f"latents_mean must be finite and latents_std positive, not {self.latents_mean} and {self.latents_std}"
            )
        if self.num_res_blocks < 1 or not self.dim_mult or any(m < 1 or self.base_dim * m % 2 for m in self.dim_mult):
            raise CheckpointError(
                f"base_dim {self.base_dim}, dim_mult {self.dim_mult}, num_res_blocks {self.num_res_blocks}: every "
                "level needs a residual block and an even number of channels"
            )

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent pixel along each side."""
        return 2 ** (len(self.dim_mult) - 1)

    @classmethod
    def from_shapes(cls, shapes: Shapes, **overrides) -> WanVAEConfig:
        """Read the sizes from the shapes of a state dict in the original Wan naming, with 3-D or 2-D kernels.

        `overrides` are what shapes cannot tell (`latents_mean`, `latents_std`), from a `config.json` if there is one.
        Raises `CheckpointError` if a key is missing from which sizes are read.
        """
        down = "encoder.downsamples"
        layers = count_blocks(shapes, down)
        resamples = [i for i in range(layers) if f"{down}.{i}.resample.1.weight" in shapes]
        res_blocks = resamples[0] if resamples else layers
        try:
            base_dim, image_channels = shapes["encoder.conv1.weight"][:2]
            z_dim = shapes["conv2.weight"][0]
            # every level starts with a residual block, whose last convolution has as many channels as the level
            widths = [shapes[f"{down}.{i}.residual.6.weight"][0] for i in range(0, max(layers, 1), res_blocks + 1)]
        except KeyError as error:
            raise CheckpointError(f"not a Wan 2.1 VAE: the key {error} is missing") from None
        except (ValueError, IndexError):
            raise CheckpointError("not a Wan 2.1 VAE: a kernel has an unexpected rank") from None
        if image_channels != 3 or any(width % base_dim for width in widths):
            raise CheckpointError(
                f"not a Wan 2.1 VAE: {image_channels} image channels (3 expected) and levels of {widths} channels, "
                f"which must be multiples of the {base_dim} of encoder.conv1"
            )
        return cls(
            **{
                "base_dim": base_dim,
                "dim_mult": tuple(width // base_dim for width in widths),
                "num_res_blocks": res_blocks,
                "z_dim": z_dim,
                **overrides,
            }
        )
