"""How well the bundled model edits with quantised weights: `python -m tools.tiny.products`.

Its MMDiT is quantised in memory, by each format that has products with rounded activations, and edits the scenes of
`evaluate` by the exact product and by the rounded one, with the seeds of the full weights. A rounded product runs on
the processor here, whichever device it is for. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from joyimage import JoyImage
from joyimage.conditioning import Conditioning
from joyimage.mmdit import MMDiT
from joyimage.quantisation import layers, products
from joyimage.quantisation.kernels import FEWEST_TOKENS, KERNELS
from joyimage.quantisation.rounded import hardware
from tools.quantise import matrices, pack

from . import judge
from .evaluate import condition, markdown, outputs, test_pairs
from .tasks import Pairs

COUNT = 25  # scenes of each task
FORMATS = ("int8", "int8_convrot", "float8_e4m3fn")
JUDGED = {
    "move": "object in the box",
    "recolour": "recoloured",
    "rotate": "right view",
    "generate": "colours and shapes",
}

Pictures = dict[str, np.ndarray]


def use(network: MMDiT, form: str, rounded: bool) -> None:
    """Let its layers multiply by the first kernel of torch's for this format, on the processor."""
    row = next(row for row in KERNELS if form in row.formats and row.name.startswith("torch."))
    for layer in network.modules():
        if isinstance(layer, layers.Linear):
            layer.kernel = replace(row, device="cpu") if rounded else None


def runs(model: JoyImage) -> Iterator[tuple[str, str]]:
    """The networks to compare, each at work in `model` while it is handed out: format and products."""
    yield "full weights", "float32"
    weights = matrices(model.mmdit, "mmdit")
    for form in FORMATS:
        pack(model.mmdit, weights, form)
        for kind in ("exact", "8bit"):
            if kind == "8bit" and form != "float8_e4m3fn" and not hardware(torch.device("cpu")).vnni:
                print(f"{form}: this processor has no VNNI, so its rounded products are left out", flush=True)
                continue
            use(model.mmdit, form, kind == "8bit")
            yield form, kind


def decibels(model: JoyImage, conditionings: list[Conditioning]) -> list[float]:
    """Of each rounded product in four steps against the exact one with the same input."""
    found: list[float] = []

    def measure(layer: layers.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        if layer.packed is not None and inputs[0].flatten(0, -2).shape[0] >= FEWEST_TOKENS:
            wanted = products.linear(inputs[0], layer.packed, layer.bias)
            found.append((20 * torch.log10(wanted.norm() / (output - wanted).norm())).item())

    linears = [layer for layer in model.mmdit.modules() if isinstance(layer, layers.Linear)]
    hooks = [layer.register_forward_hook(measure) for layer in linears]
    outputs(model, conditionings, steps=4)
    for hook in hooks:
        hook.remove()
    return found


def psnr(a: Pictures, b: Pictures) -> float:
    """Mean over all pictures."""
    return float(np.mean([judge.psnr(a[task], b[task], np.ones(a[task].shape[:3], bool)).mean() for task in a]))


def compare(count: int) -> str:
    model = JoyImage.load("tiny")
    pairs: dict[str, Pairs] = {task: test_pairs(task, count) for task in JUDGED}
    conditionings = {task: condition(model, made) for task, made in pairs.items()}
    first: Pictures = {}
    rows = []
    for form, kind in runs(model):
        made = {task: outputs(model, conditionings[task]) for task in pairs}
        first = first or made
        right = {task: judge.verdicts(pairs[task], made[task])[figure] for task, figure in JUDGED.items()}
        shares = [float(marks.mean()) for marks in right.values()]
        rows.append([form, kind, *(f"{100 * share:.0f} %" for share in (*shares, np.mean(shares)))])
        rows[-1].append(f"{psnr(made, first):.1f} dB" if made is not first else "")
        layer = decibels(model, conditionings["move"]) if kind == "8bit" else []
        rows[-1].append(f"{min(layer):.1f}, {np.median(layer):.1f} dB" if layer else "")
        print(*rows[-1], flush=True)
    return markdown(["weights", "products", *JUDGED, "all", "PSNR to full weights", "a layer: least, median"], rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help=f"scenes of each task ({COUNT})")
    print(compare(parser.parse_args(arguments).count))


if __name__ == "__main__":
    main()
