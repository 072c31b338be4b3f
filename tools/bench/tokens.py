"""What a token of an answer costs with quantised weights: `python -m tools.bench.tokens`.

A language model of moderate size with random weights reads a prompt and goes on token by token, in one process for all
formats, so that what else the machine does touches all alike. Prints a table in Markdown: milliseconds for a token, the
least of several, and of the prompt.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from joyimage.precision import native
from joyimage.quantisation import layers
from tools.quantise import QUANTISERS, matrices, pack

PROMPT = 300  # tokens
SIZES = {
    "hidden_size": 1536, "intermediate_size": 4608, "num_hidden_layers": 4, "num_attention_heads": 12,
    "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 1024,
}  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16)


def network(dtype: torch.dtype, form: str | None) -> nn.Module:
    torch.manual_seed(0)
    made = Qwen3ForCausalLM(Qwen3Config(**SIZES)).eval().requires_grad_(False).to(dtype)
    layers.replace_layers(made, layers)
    if form:
        pack(made, matrices(made, "encoder"), form)
    return made


def timed(run: Callable[[], Tensor]) -> float:
    started = time.process_time()
    run()
    return (time.process_time() - started) * 1000


@torch.inference_mode()
def measure(dtype: torch.dtype, form: str | None, count: int) -> tuple[float, float]:
    """Milliseconds of processor time for a token and for the prompt."""
    model: Callable = network(dtype, form)
    ids = torch.arange(PROMPT)[None]
    kept = {"past_key_values": model(ids, use_cache=True).past_key_values}
    prompt = min(timed(lambda: model(ids).logits) for _ in range(2))
    token = ids[:, :1]
    return min(timed(lambda: model(token, use_cache=True, **kept).logits) for _ in range(count)), prompt


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=8, help="tokens (8)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(
        "| weights | computed in | ms for a token | of float32 | ms for the prompt |\n| --- | --- | --- | --- | --- |"
    )
    whole = 0.0
    for dtype in DTYPES:
        if not native(dtype, "cpu"):
            continue
        for form in (None, *QUANTISERS):
            token, prompt = measure(dtype, form, options.count)
            whole = whole or token
            name = str(dtype).removeprefix("torch.")
            print(f"| {form or name} | {name} | {token:.1f} | {token / whole:.2f} | {prompt:.0f} |", flush=True)


if __name__ == "__main__":
    main()
