"""The bundled model: JoyAI-Image's architecture at a size that runs anywhere, with nothing to download.

For now its weights are random, made on the spot and the same every time. It shows that everything runs and what
the parts exchange; its pictures are noise. Only `build` knows where the weights come from.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from ..config import MMDiTConfig, WanVAEConfig
from ..encoder import Encoder
from ..mmdit import MMDiT
from ..vae import WanVAE

BASE_SIZE = 64  # side in pixels of the squares that it makes
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# How Qwen's tokenizer cuts text into words before it looks for byte pairs.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT_SIZE = 128
HEAD_DIM = 32


def build(device: torch.device | str | None = None) -> tuple[MMDiT, WanVAE, Encoder]:
    """The three networks, float32, in eval mode; 3.4M parameters. Leaves the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mmdit = MMDiT(
            MMDiTConfig(
                hidden_size=128, num_heads=4, num_layers=4, text_dim=TEXT_SIZE, mlp_size=512, rope_dims=(4, 14, 14)
            )
        )
        vae = WanVAE(WanVAEConfig(base_dim=16))
        tokens = tokenizer()
        encoder = Qwen3VLForConditionalGeneration(encoder_config(tokens))
    networks = [network.eval().requires_grad_(False).to(device) for network in (mmdit, vae, encoder)]
    return networks[0], networks[1], Encoder(networks[2], tokens)


def tokenizer(texts: Iterable[str] = (), size: int = 256) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with Qwen's normaliser, word pattern and control tokens.

    Its byte pairs are learned from `texts` until it has `size` entries; with none there is one token per byte.
    """
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
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    bpe.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL_TOKENS])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def encoder_config(tokens: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """Qwen3-VL with four decoder layers: one more than DeepStack features, or the last would come too late."""
    ids = tokens.get_vocab()
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": TEXT_SIZE,
            "intermediate_size": 2 * TEXT_SIZE,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": HEAD_DIM,
            "rope_scaling": {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True},
            "rope_theta": 5e6,
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 4,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": TEXT_SIZE,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
