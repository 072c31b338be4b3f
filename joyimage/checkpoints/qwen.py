"""The configuration of a Qwen3-VL encoder: the one beside the weights, or that of a released one of their sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..config import Shapes, count_blocks
from ..errors import CheckpointError

TEXT, VISION = "model.language_model", "model.visual"
HEAD = "lm_head.weight"
EMBEDDING = f"{TEXT}.embed_tokens.weight"

VISION_HEADS = 16  # in every released size
DEEPSTACK = {27: (8, 16, 24), 24: (5, 11, 17)}  # vision layers whose features go to the decoder, by depth
MROPE_SECTION = (24, 20, 20)  # rotary pairs of a 128-channel head for (t, h, w)
TIED_SIZES = (2048, 2560)  # the 2B and the 4B use the embedding as language head
CONTROL_TOKENS = {  # entry of the configuration: token, and its id in every released size
    "image_token_id": ("<|image_pad|>", 151655),
    "video_token_id": ("<|video_pad|>", 151656),
    "vision_start_token_id": ("<|vision_start|>", 151652),
    "vision_end_token_id": ("<|vision_end|>", 151653),
}


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the decoder, by transformers' names; the defaults are those of its class."""

    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    head_dim: int = 128
    attention_bias: bool = False


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision tower, as `TextConfig`."""

    depth: int = 27
    hidden_size: int = 1152
    num_heads: int = 16
    intermediate_size: int = 4304
    in_channels: int = 3
    patch_size: int = 16
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    out_hidden_size: int = 3584
    num_position_embeddings: int = 2304
    deepstack_visual_indexes: Sequence[int] = (8, 16, 24)


@dataclass(frozen=True)
class EncoderConfig:
    """What sizes depend on. A `head` is a language head of its own, `tied` one that is the embedding."""

    text_config: TextConfig
    vision_config: VisionConfig
    head: bool = False
    tied: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], head: bool) -> EncoderConfig:
        """From a `config.json`. Raises `CheckpointError` for one of another model, `ValueError` for bad entries."""
        if config.get("model_type") != "qwen3_vl":
            raise CheckpointError(f"config.json: its model_type is {config.get('model_type')!r}, expected 'qwen3_vl'")
        tied = bool(config.get("tie_word_embeddings")) and not head
        text, vision = _sizes(TextConfig, config, "text_config"), _sizes(VisionConfig, config, "vision_config")
        # what no shape tells, and what runs would fail at
        for what, whole, part in (
            ("vision_config.hidden_size", vision.hidden_size, 4 * vision.num_heads),  # a head rotates in pairs twice
            ("text_config.num_attention_heads", text.num_attention_heads, text.num_key_value_heads),
            ("text_config.head_dim", text.head_dim, 2),
        ):
            if not part or whole % part:
                raise ValueError(f"{what} is {whole}, not a multiple of {part}")
        return cls(text, vision, head, tied)


def _sizes(kind: type, config: Mapping[str, Any], name: str) -> Any:
    """The entries of one part of a configuration; what it leaves out has its default."""
    entries = {} if config.get(name) is None else config[name]
    if not isinstance(entries, dict):
        raise ValueError(f"{name} is {entries!r:.40}")
    if entries.get("num_key_value_heads", 1) is None:  # as many as heads, then
        entries = entries | {"num_key_value_heads": entries.get("num_attention_heads")}
    given = {each.name: entries[each.name] for each in fields(kind) if entries.get(each.name) is not None}
    for entry, value in given.items():
        numbers = value if entry == "deepstack_visual_indexes" else (value,)
        if not isinstance(numbers, list | tuple) or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise ValueError(f"{name}.{entry} is {value!r:.40}")
    return kind(**given)


def released_config(shapes: Shapes) -> dict[str, Any]:
    """What the `config.json` of a released Qwen3-VL would hold, read off the shapes in transformers' naming.

    Heads of the vision tower, DeepStack layers, rotary sections and their base (5,000,000) follow the released
    sizes (2B, 4B, 8B, 32B), as no shape tells them.
    Raises `CheckpointError` if a key that sizes are read from is missing.
    """
    try:
        return {
            "model_type": "qwen3_vl",
            "text_config": _text_config(shapes),
            "vision_config": _vision_config(shapes),
            "tie_word_embeddings": HEAD not in shapes and shapes[EMBEDDING][1] in TIED_SIZES,
            **{entry: token_id for entry, (_, token_id) in CONTROL_TOKENS.items()},
        }
    except KeyError as error:
        raise CheckpointError(f"not a Qwen3-VL encoder: the key {error} is missing") from None
    except (IndexError, ValueError, ZeroDivisionError):
        raise CheckpointError("not a Qwen3-VL encoder: an embedding or projection has an unexpected rank") from None


def _text_config(shapes: Shapes) -> dict[str, Any]:
    layer = f"{TEXT}.layers.0"
    vocab_size, hidden_size = shapes[EMBEDDING]
    (head_dim,) = shapes[f"{layer}.self_attn.q_norm.weight"]
    height = MROPE_SECTION[1] * head_dim // 128
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": shapes[f"{layer}.mlp.gate_proj.weight"][0],
        "num_hidden_layers": count_blocks(shapes, f"{TEXT}.layers"),
        "num_attention_heads": shapes[f"{layer}.self_attn.q_proj.weight"][0] // head_dim,
        "num_key_value_heads": shapes[f"{layer}.self_attn.k_proj.weight"][0] // head_dim,
        "head_dim": head_dim,
        "max_position_embeddings": 262144,
        "rope_theta": 5_000_000,
        "rope_scaling": {
            "rope_type": "default",
            "mrope_interleaved": True,
            "mrope_section": [head_dim // 2 - 2 * height, height, height],
        },
    }


def _vision_config(shapes: Shapes) -> dict[str, Any]:
    hidden_size, in_channels, temporal, patch, _ = shapes[f"{VISION}.patch_embed.proj.weight"]
    depth = count_blocks(shapes, f"{VISION}.blocks")
    features = count_blocks(shapes, f"{VISION}.deepstack_merger_list")
    evenly = tuple(i * depth // (features + 1) - 1 for i in range(1, features + 1))
    return {
        "depth": depth,
        "hidden_size": hidden_size,
        "intermediate_size": shapes[f"{VISION}.blocks.0.mlp.linear_fc1.weight"][0],
        "num_heads": VISION_HEADS,
        "in_channels": in_channels,
        "patch_size": patch,
        "temporal_patch_size": temporal,
        "spatial_merge_size": math.isqrt(shapes[f"{VISION}.merger.linear_fc1.weight"][1] // hidden_size),
        "out_hidden_size": shapes[f"{VISION}.merger.linear_fc2.weight"][0],
        "num_position_embeddings": shapes[f"{VISION}.pos_embed.weight"][0],
        "deepstack_visual_indexes": DEEPSTACK[depth] if features == len(DEEPSTACK.get(depth, ())) else evenly,
    }
