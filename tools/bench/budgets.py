"""Peak memory and time of a guided step within memory budgets: `python -m tools.bench.budgets`.

One edit of 1024x1024 pixels with one reference, random weights of the published size in main memory. The allocator is
held to the budget, as on a card of that size.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

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
from joyimage.mmdit import MMDiT
from joyimage.quantisation import layers
from joyimage.quantisation.formats import FORMATS, Scale
from joyimage.quantisation.tensor import QuantizedTensor
from joyimage.sampling import guide

from .measure import median_times

RESULTS = Path(__file__).parent / "results"
BUDGETS = ("24GB", "16GB", "12GB", "8GB")
TEXT_TOKENS = (1324, 1314)  # positive and negative prompt, 1024 tokens of them the reference's


def fp8(weight: Tensor) -> QuantizedTensor:
    data = weight.to(torch.float8_e4m3fn).view(torch.uint8)
    form = replace(FORMATS["float8_e4m3fn"], scales=(Scale(),))
    return QuantizedTensor(data, (torch.tensor(1.0),), form, tuple(weight.shape))


def int8(weight: Tensor) -> QuantizedTensor:
    scale = weight.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    data = (weight / scale).round().to(torch.int8).view(torch.uint8)
    form = replace(FORMATS["int8"], scales=(Scale(rows=1),))
    return QuantizedTensor(data, (scale,), form, tuple(weight.shape))


PACKERS: dict[str, Callable[[Tensor], QuantizedTensor] | None] = {"bf16": None, "fp8": fp8, "int8": int8}


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


def random_mmdit(config: MMDiTConfig, form: str, dtype: torch.dtype = torch.bfloat16) -> MMDiT:
    """A network in main memory. All its weights are cut from the same noise, which takes no time to draw."""
    with torch.device("meta"):
        model = MMDiT(config, operations=layers, dtype=dtype)
    largest = max(parameter.numel() for parameter in model.parameters())
    noise = 0.02 * torch.randn(largest, generator=torch.Generator().manual_seed(0))
    for module in model.modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            value = noise[: empty.numel()].to(empty.dtype, copy=True).view(empty.shape)
            setattr(module, name, nn.Parameter(value, requires_grad=False))
    pack = PACKERS[form]
    for layer in model.double_blocks.modules() if pack else ():
        if isinstance(layer, layers.Linear):
            layer.pack(pack(layer.weight.data))
    return model.eval()


def run(
    config: MMDiTConfig,
    form: str,
    budgets: list[int],
    device: torch.device,
    *,
    latent: int = 128,
    text_tokens: tuple[int, int] = TEXT_TOKENS,
    repeats: int = 3,
) -> list[Row]:
    """One row per budget, the largest first; `latent` is the side of the target's and the reference's latent."""
    model, pinned, rows = random_mmdit(config, form), pinned_for(device), []
    images = [torch.randn(1, config.in_channels, 1, latent, latent).to(device) for _ in range(2)]
    prompts = [torch.randn(1, length, config.text_dim).to(device, torch.bfloat16) for length in text_tokens]
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
        seconds = median_times({"step": step}, repeats)["step"]
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        worker.leave()
        stay = len(placement.resident[0])
        rows.append(Row(form, budget, stay, placement.streamed, placement.peak, peak, seconds))
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
    line = "{:<7}{:>10}{:>8}{:>11}{:>11}{:>11}{:>9}".format
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
    parser.add_argument("--formats", nargs="+", choices=PACKERS, default=list(PACKERS))
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
