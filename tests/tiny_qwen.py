"""A Qwen3-VL small enough to be made on the spot: random weights, and a tokenizer trained on two sentences."""

from __future__ import annotations

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

# Qwen's control tokens in their order; the last four are in the vocabulary without being marked as special.
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
UNMARKED = ["<|fim_prefix|>", "<|file_sep|>", "<think>", "</think>"]
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships",
    "system user assistant: move the camera, rotate the object to show the front side view, 加一顶红色的帽子\n",
]


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's normaliser, word pattern and control tokens, about 340 entries."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))
    bpe.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in UNMARKED])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")


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


def processor(tokens: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """transformers' processor for text and images, with Qwen3-VL's preprocessing written out."""
    without_torchvision = "Qwen2VLImageProcessorPil"  # its name in transformers 5
    name = without_torchvision if hasattr(transformers, without_torchvision) else "Qwen2VLImageProcessor"
    images = getattr(transformers, name)(
        patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3, min_pixels=65_536, max_pixels=16_777_216
    )
    return ImageTextProcessor(images, tokens, None)


class ImageTextProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor without its part for videos, which needs torchvision."""

    def check_argument_for_proper_class(self, argument_name, argument):
        return type(argument)
