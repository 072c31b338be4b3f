"""Sizes of the networks, inferred from the shapes in a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """Number of consecutive blocks `prefix.0`, `prefix.1`, … named in `shapes`."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(m[1]) for key in shapes if (m := pattern.match(key))), default=-1)


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
        if sum(self.rope_dims) != self.head_dim or any(d % 2 or d < 0 for d in self.rope_dims):
            raise CheckpointError(
                f"rope_dims {self.rope_dims} must be even and add up to the head's {self.head_dim} channels"
            )
        if self.patch_size[0] != 1:
            raise CheckpointError(f"patch size {self.patch_size}: only patches of one frame are supported")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @classmethod
    def from_shapes(cls, shapes: Shapes, **overrides) -> MMDiTConfig:
        """Read the sizes off the shapes of a state dict in Diffusers' naming.

        `overrides` are what shapes cannot tell (`rope_dims`, `theta`), from a `config.json` where there is one.
        Raises `CheckpointError` if a key that sizes are read from is missing.
        """
        try:
            hidden, in_channels, *patch = shapes["img_in.weight"]
            (head_dim,) = shapes["double_blocks.0.attn.img_attn_q_norm.weight"]
            mlp_size = shapes["double_blocks.0.img_mlp.net.0.proj.weight"][0]
            text_dim = shapes["condition_embedder.text_embedder.linear_1.weight"][1]
            out_features = shapes["proj_out.weight"][0]
        except KeyError as error:
            raise CheckpointError(f"not a JoyImage MMDiT: the key {error} is missing") from None
        except ValueError:
            raise CheckpointError("not a JoyImage MMDiT: img_in or a norm has an unexpected rank") from None
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
