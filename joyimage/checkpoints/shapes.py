"""The names and shapes of each network's parameters, from its sizes alone, and how a file's differ from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..config import TIME_CHANNELS, MMDiTConfig, Shapes, WanVAEConfig
from ..errors import CheckpointError
from .configs import config_of
from .folders import Source
from .namings import COMPONENTS
from .qwen import EMBEDDING, HEAD, TEXT, VISION, EncoderConfig
from .vae_keys import image_shapes

Named = Iterator[tuple[str, tuple[int, ...]]]

LISTED = 12  # names in a message
IMAGE_CHANNELS = 3


def layer(name: str, *weight: int, bias: bool = True) -> Named:
    """A layer whose weight has this shape, with a bias for each output."""
    yield f"{name}.weight", weight
    if bias:
        yield f"{name}.bias", weight[:1]


# -- the MMDiT --------------------------------------------------------------------------------------------------------


def mmdit_shapes(config: MMDiTConfig) -> Shapes:
    """Of `MMDiT(config)`."""
    size, patch, embedder = config.hidden_size, config.patch_size, "condition_embedder"
    return dict(
        chain(
            layer("img_in", size, config.in_channels, *patch),
            layer(f"{embedder}.time_embedder.linear_1", size, TIME_CHANNELS),
            layer(f"{embedder}.time_embedder.linear_2", size, size),
            layer(f"{embedder}.time_proj", 6 * size, size),
            layer(f"{embedder}.text_embedder.linear_1", size, config.text_dim),
            layer(f"{embedder}.text_embedder.linear_2", size, size),
            *(_double_block(f"double_blocks.{i}", config) for i in range(config.num_layers)),
            layer("proj_out", config.out_channels * math.prod(patch), size),
        )
    )


def _double_block(name: str, config: MMDiTConfig) -> Named:
    size, head = config.hidden_size, config.head_dim
    for stream in ("img", "txt"):
        yield f"{name}.{stream}_mod.modulate_table", (1, 6, size)
        yield from layer(f"{name}.{stream}_mlp.net.0.proj", config.mlp_size, size)
        yield from layer(f"{name}.{stream}_mlp.net.2", size, config.mlp_size)
        yield from layer(f"{name}.attn.{stream}_attn_qkv", 3 * size, size)
        yield f"{name}.attn.{stream}_attn_q_norm.weight", (head,)
        yield f"{name}.attn.{stream}_attn_k_norm.weight", (head,)
        yield from layer(f"{name}.attn.{stream}_attn_proj", size, size)


# -- the VAE ----------------------------------------------------------------------------------------------------------


def vae_shapes(config: WanVAEConfig) -> Shapes:
    """Of `WanVAE(config)`."""
    return dict(
        chain(
            _vae_encoder(config),
            layer("conv1", 2 * config.z_dim, 2 * config.z_dim, 1, 1),
            layer("conv2", config.z_dim, config.z_dim, 1, 1),
            _vae_decoder(config),
        )
    )


def _vae_encoder(config: WanVAEConfig) -> Named:
    widths = [config.base_dim * factor for factor in config.dim_mult]
    yield from layer("encoder.conv1", config.base_dim, IMAGE_CHANNELS, 3, 3)
    number, channels = 0, config.base_dim
    for level, width in enumerate(widths):
        for _ in range(config.num_res_blocks):
            yield from _residual(f"encoder.downsamples.{number}", channels, width)
            number, channels = number + 1, width
        if level < len(widths) - 1:
            yield from layer(f"encoder.downsamples.{number}.resample.1", width, width, 3, 3)
            number += 1
    yield from _middle("encoder.middle", channels)
    yield from _vae_head("encoder.head", channels, 2 * config.z_dim)


def _vae_decoder(config: WanVAEConfig) -> Named:
    widths = [config.base_dim * factor for factor in reversed(config.dim_mult)]
    yield from layer("decoder.conv1", widths[0], config.z_dim, 3, 3)
    yield from _middle("decoder.middle", widths[0])
    number, channels = 0, widths[0]
    for level, width in enumerate(widths):
        for _ in range(config.num_res_blocks + 1):
            yield from _residual(f"decoder.upsamples.{number}", channels, width)
            number, channels = number + 1, width
        if level < len(widths) - 1:
            yield from layer(f"decoder.upsamples.{number}.resample.1", width // 2, width, 3, 3)
            number, channels = number + 1, width // 2
    yield from _vae_head("decoder.head", channels, IMAGE_CHANNELS)


def _residual(name: str, channels_in: int, channels_out: int) -> Named:
    yield f"{name}.residual.0.gamma", (channels_in,)
    yield from layer(f"{name}.residual.2", channels_out, channels_in, 3, 3)
    yield f"{name}.residual.3.gamma", (channels_out,)
    yield from layer(f"{name}.residual.6", channels_out, channels_out, 3, 3)
    if channels_in != channels_out:
        yield from layer(f"{name}.shortcut", channels_out, channels_in, 1, 1)


def _middle(name: str, channels: int) -> Named:
    yield from _residual(f"{name}.0", channels, channels)
    yield f"{name}.1.norm.gamma", (channels,)
    yield from layer(f"{name}.1.to_qkv", 3 * channels, channels, 1, 1)
    yield from layer(f"{name}.1.proj", channels, channels, 1, 1)
    yield from _residual(f"{name}.2", channels, channels)


def _vae_head(name: str, channels_in: int, channels_out: int) -> Named:
    yield f"{name}.0.gamma", (channels_in,)
    yield from layer(f"{name}.2", channels_out, channels_in, 3, 3)


# -- the encoder ------------------------------------------------------------------------------------------------------


def encoder_shapes(config: EncoderConfig) -> Shapes:
    """Of transformers' Qwen3-VL. A tied language head counts once, as the embedding."""
    text, vision = config.text_config, config.vision_config
    return dict(
        chain(
            _vision(config),
            layer(EMBEDDING.removesuffix(".weight"), text.vocab_size, text.hidden_size, bias=False),
            *(_decoder_layer(f"{TEXT}.layers.{i}", config) for i in range(text.num_hidden_layers)),
            layer(f"{TEXT}.norm", text.hidden_size, bias=False),
            layer(HEAD.removesuffix(".weight"), text.vocab_size, text.hidden_size, bias=False) if config.head else (),
            layer(f"{VISION}.pos_embed", vision.num_position_embeddings, vision.hidden_size, bias=False),
        )
    )


def _vision(config: EncoderConfig) -> Named:
    vision = config.vision_config
    size, patch = vision.hidden_size, vision.patch_size
    yield from layer(f"{VISION}.patch_embed.proj", size, vision.in_channels, vision.temporal_patch_size, patch, patch)
    for i in range(vision.depth):
        block = f"{VISION}.blocks.{i}"
        yield from layer(f"{block}.norm1", size)
        yield from layer(f"{block}.norm2", size)
        yield from layer(f"{block}.attn.qkv", 3 * size, size)
        yield from layer(f"{block}.attn.proj", size, size)
        yield from layer(f"{block}.mlp.linear_fc1", vision.intermediate_size, size)
        yield from layer(f"{block}.mlp.linear_fc2", size, vision.intermediate_size)
    merged = size * vision.spatial_merge_size**2
    features = range(len(vision.deepstack_visual_indexes))
    mergers = {f"{VISION}.merger": size} | {f"{VISION}.deepstack_merger_list.{i}": merged for i in features}
    for merger, normalised in mergers.items():
        yield from layer(f"{merger}.norm", normalised)
        yield from layer(f"{merger}.linear_fc1", merged, merged)
        yield from layer(f"{merger}.linear_fc2", vision.out_hidden_size, merged)


def _decoder_layer(name: str, config: EncoderConfig) -> Named:
    text = config.text_config
    size, bias = text.hidden_size, text.attention_bias
    queries, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    yield from layer(f"{name}.self_attn.q_proj", queries, size, bias=bias)
    yield from layer(f"{name}.self_attn.k_proj", keys, size, bias=bias)
    yield from layer(f"{name}.self_attn.v_proj", keys, size, bias=bias)
    yield from layer(f"{name}.self_attn.o_proj", size, queries, bias=bias)
    yield from layer(f"{name}.self_attn.q_norm", text.head_dim, bias=False)
    yield from layer(f"{name}.self_attn.k_norm", text.head_dim, bias=False)
    yield from layer(f"{name}.mlp.gate_proj", text.intermediate_size, size, bias=False)
    yield from layer(f"{name}.mlp.up_proj", text.intermediate_size, size, bias=False)
    yield from layer(f"{name}.mlp.down_proj", size, text.intermediate_size, bias=False)
    yield from layer(f"{name}.input_layernorm", size, bias=False)
    yield from layer(f"{name}.post_attention_layernorm", size, bias=False)


SHAPES: dict[str, Callable[[Any], Shapes]] = {"mmdit": mmdit_shapes, "vae": vae_shapes, "encoder": encoder_shapes}
# what becomes of the shapes that a file has, under our names, when its tensors become those of the network
SHAPE_TRANSFORMS: dict[str, Callable[[Shapes], Shapes]] = {"vae": image_shapes}


def expected_shapes(source: Source) -> Shapes:
    """Those of the network that a source is for. Raises `CheckpointError` where they cannot be told."""
    return SHAPES[source.component](config_of(source))


# -- comparing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """How a file's tensors differ from a network's, in sorted names."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()  # "name (2, 3) instead of (3, 3)"

    def __str__(self) -> str:
        """One clause per kind, the first dozen names of each; empty if there is no difference."""
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.misshapen))
        return "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds if names)


def compare(expected: Shapes, source: Source) -> Difference:
    """Compare names and shapes with those of a network, see `SHAPES`, without reading any tensor."""
    shapes = SHAPE_TRANSFORMS.get(source.component, dict)(source.fitted(expected).shapes)
    names = source.match.names
    return Difference(
        tuple(sorted(expected.keys() - shapes.keys())),
        tuple(sorted(names[name] for name in shapes.keys() - expected.keys())),
        tuple(
            f"{names[name]} {shapes[name]} instead of {expected[name]}"
            for name in sorted(expected.keys() & shapes.keys())
            if shapes[name] != expected[name]
        ),
    )


def fitting_shapes(source: Source) -> Shapes:
    """`expected_shapes`, which must be the source's own. Raises `CheckpointError` that names what differs."""
    expected = expected_shapes(source)
    if text := str(compare(expected, source)):
        raise CheckpointError(f"{source.path}: does not fit {COMPONENTS[source.component]} of its sizes: {text}")
    return expected


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
