"""A Qwen3-VL small enough to be made on the spot: random weights, and a tokenizer trained on two sentences."""

from __future__ import annotations

import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from tools.tiny import tokens as training

SPECIAL = list(training.CONTROL_TOKENS)
UNMARKED = ["<|fim_prefix|>", "<|file_sep|>", "<think>", "</think>"]  # in Qwen's vocabulary, not marked as special
CORPUS = [
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships",
    "system user assistant: move the camera, rotate the object to show the front side view, 加一顶红色的帽子\n",
]


def tokenizer() -> PreTrainedTokenizerFast:
    """About 340 entries, with byte pairs and all kinds of control tokens."""
    made = training.tokenizer(CORPUS, size=330)
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in UNMARKED])
    return made


def config(tokens: PreTrainedTokenizerFast, **text) -> Qwen3VLConfig:
    """One more decoder layer than DeepStack features, so that the last layer's output is the finished one."""
    ids = tokens.get_vocab()
    return Qwen3VLConfig(
        text_config={
            "vocab_size": 384,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "initializer_range": 0.1,  # outputs of about 1, so that absolute tolerances mean something
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True},
            "rope_theta": 5e6,
            "pad_token_id": ids["<|endoftext|>"],
            **text,
        },
        vision_config={
            "depth": 4,
            "initializer_range": 0.1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": text.get("hidden_size", 32),
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def model(tokens: PreTrainedTokenizerFast, seed: int = 0, **text) -> Qwen3VLForConditionalGeneration:
    """Random float32 weights, the same for a given seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3VLForConditionalGeneration(config(tokens, **text)).eval()
