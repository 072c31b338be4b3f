"""Peak memory and time of a guided step within memory budgets: `python -m tools.bench.budgets`.

One edit of 1024x1024 pixels with one reference, random weights of the published size in main memory. The allocator is
held to the budget, as on a card of that size.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from joyimage.config import MMDiTConfig
from joyimage.memory.budget import (
    RESERVES,
    itemsize,
    measure,
    mmdit_activations,
    parse_size,
    place,
    readable,
    unpacking,
)
from joyimage.memory.streaming import Worker, pinned_for
from joyimage.sampling import guide

from .measure import median_times
from .networks import random_mmdit

RESULTS = Path(__file__).parent / "results"
BUDGETS = ("24GB", "16GB", "12GB", "8GB")
TEXT_TOKENS = (1324, 1314)  # positive and negative prompt, 1024 tokens of them the reference's


FORMATS = {"whole": None, "fp8": "float8_e4m3fn", "int8": "int8"}  # of `tools.quantise.QUANTISERS`


@dataclass(frozen=True)
class Row:
    """What one format did in one budget; amounts in bytes. `peak` is the allocator's, None on a CPU."""

    format: str
    budget: int
    resident: int
    streamed: int
    expected: int
    peak: int | None
    seconds: float


def run(
    config: MMDiTConfig,
    form: str,
    budgets: list[int],
    device: torch.device,
    *,
    dtype: torch.dtype = torch.bfloat16,
    latent: int = 128,
    text_tokens: tuple[int, int] = TEXT_TOKENS,
    repeats: int = 3,
) -> list[Row]:
    """One row per budget, the largest first; `latent` is the side of the target's and the reference's latent."""
    model, pinned, rows = random_mmdit(config, FORMATS[form], dtype), pinned_for(device), []
    images = [torch.randn(1, config.in_channels, 1, latent, latent).to(device) for _ in range(2)]
    prompts = [torch.randn(1, length, config.text_dim).to(device, dtype) for length in text_tokens]
    name = form if FORMATS[form] else str(dtype).removeprefix("torch.")
    tokens = 2 * (latent // 2) ** 2 + max(text_tokens)
    item = itemsize(model)
    activations = mmdit_activations(config, tokens, item) + unpacking(model, item)
    part = measure("mmdit", model, {"blocks": model.double_blocks})

    @torch.inference_mode()
    def step() -> Tensor:
        t = torch.tensor([731.25], device=device)
        return guide(*(model(images[0], t, prompt, images[1:]) for prompt in prompts), 4.0)

    for budget in sorted(budgets, reverse=True):
        placement = place(part, activations, budget, RESERVES.get(device.type, 0))
        worker = Worker(model, [list(model.double_blocks)], device, pinned)
        limit_allocator(device, budget)
        worker.enter(placement)
        seconds = median_times({"step": step}, repeats, device.type == "cuda")["step"]
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        worker.leave()
        stay = len(placement.resident[0])
        rows.append(Row(name, budget, stay, placement.streamed, placement.peak, peak, seconds))
    return rows


def limit_allocator(device: torch.device, budget: int) -> None:
    """Let torch allocate no more than the budget, and start counting its peak."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device)
        torch.cuda.reset_peak_memory_stats(device)


def table(rows: list[Row], blocks: int) -> str:
    line = "{:<9}{:>10}{:>8}{:>11}{:>11}{:>11}{:>9}".format
    return "\n".join(
        [
            line("format", "budget", "stay", "streamed", "expected", "peak", "step"),
            *(
                line(
                    row.format,
                    readable(row.budget),
                    f"{row.resident}/{blocks}",
                    *map(readable, (row.streamed, row.expected)),
                    readable(row.peak) if row.peak else "",
                    f"{row.seconds:.2f} s",
                )
                for row in rows
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.budgets", description=__doc__)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS))
    parser.add_argument("--repeats", type=int, default=3, help="timed steps per budget (3)")
    parser.add_argument("--blocks", type=int, default=40, help="fewer where main memory is short (40)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("the published size needs a GPU")
    device, config = torch.device("cuda", torch.cuda.current_device()), MMDiTConfig(num_layers=options.blocks)
    budgets = [parse_size(budget) for budget in options.budgets]
    rows = []
    for form in options.formats:
        rows += run(config, form, budgets, device, repeats=options.repeats)
        gc.collect()
    print(table(rows, options.blocks))
    name = torch.cuda.get_device_name(device)
    report = {
        "device": name,
        "torch": torch.__version__,
        "blocks": options.blocks,
        "rows": [asdict(row) for row in rows],
    }
    path = RESULTS / f"budgets-{''.join(c if c.isalnum() else '-' for c in name.lower())}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(temporary, path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
