"""The configuration and the empty model of a Qwen3-VL encoder, for transformers 4.57 and 5."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from ..config import Shapes, count_blocks
from ..errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3VLConfig, Qwen3VLForConditionalGeneration

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


def empty(config: dict[str, Any], dtype: torch.dtype, head: bool) -> Qwen3VLForConditionalGeneration:
    """Qwen3-VL without weights: its parameters are on the meta device, its rotary frequencies are real.

    Without `head` the language head is taken out: its `model` is whole, but it cannot answer.
    Raises `CheckpointError` for a configuration that transformers refuses.
    """
    import transformers  # takes seconds, and only encoders need it

    if config.get("model_type") != "qwen3_vl":
        raise CheckpointError(f"config.json: its model_type is {config.get('model_type')!r}, expected 'qwen3_vl'")
    try:
        parsed = transformers.Qwen3VLConfig(**_portable(config))
        with _ParametersOnMeta():
            model = transformers.Qwen3VLForConditionalGeneration(parsed)
    except Exception as error:  # each transformers version has error types of its own for a bad configuration
        raise CheckpointError(f"config.json: transformers refuses it ({type(error).__name__}: {error})") from error
    for parameter in model.parameters():  # not `model.to(dtype)`: the rotary frequencies must stay float32
        parameter.data = parameter.data.to(dtype)
    if not head:
        del model.lm_head
    return model


def fit_control_ids(config: Qwen3VLConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Take the control tokens' ids from the tokenizer if the configured ones lie outside a small model's embedding."""
    if max(getattr(config, entry) for entry in CONTROL_TOKENS) < config.text_config.vocab_size:
        return
    vocabulary = tokenizer.get_vocab()
    for entry, (token, _) in CONTROL_TOKENS.items():
        setattr(config, entry, vocabulary.get(token, getattr(config, entry)))


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration in the terms that both transformers versions read.

    Version 5 writes `rope_parameters`, which 4.57 ignores; 4.57 looks for the tied head in the text's part, 5 outside.
    """
    config = copy.deepcopy(config)  # transformers writes into it
    text = config["text_config"]
    text["tie_word_embeddings"] = config.get("tie_word_embeddings", False)
    if rope := text.pop("rope_parameters", None):
        text["rope_theta"] = rope.pop("rope_theta")
        text["rope_scaling"] = rope
    return config


class _ParametersOnMeta(TorchFunctionMode):
    """Puts what layers allocate to be filled later (`torch.empty`) on the meta device.

    `torch.device("meta")` would take the rotary frequencies along, which are computed and in no checkpoint.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
