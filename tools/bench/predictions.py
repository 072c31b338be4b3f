"""What was expected of an H100 and an H200 before anything was measured on one, and how each figure was derived.

A forward is counted by `tools.bench.count` at the published size: arithmetic of matrix products and of attention, and
the bytes that all other operators move. Each is divided by a rate below. The rates are ceilings that were measured on
such cards with other programs, and none of them was fitted to this library.
"""

from __future__ import annotations

from dataclasses import dataclass

from .budgets import TEXT_TOKENS
from .count import ATTENTION, Count, forward

PEAK = 790e12  # operations a second of the largest plain bf16 product on these cards: of it the share is taken


@dataclass(frozen=True)
class Card:
    """Operations and bytes a second."""

    products: float  # bf16, at the network's sizes: 148.2 TFLOP in 200 ms
    cudnn: float  # attention: 55.8 TFLOP in 93 ms
    flash: float  # the same by flash-2: 169 ms
    eight_bit: float  # row-wise fp8 with the rounding of activations: 148.2 TFLOP in 119 ms
    moved: float


CARDS = {
    "H100": Card(741e12, 600e12, 330e12, 1245e12, 3.0e12),
    "H200": Card(741e12, 600e12, 330e12, 1245e12, 4.3e12),
}
IMAGE = 2 * 64**2  # tokens of target and reference
FUSED = 70e9 / (IMAGE + 1100)  # bytes that a token moves outside of products where each pass is one: 70 GB were counted
SAVED = 24 / 80  # of an edit's forwards are left with the preset "fast": of 40 steps with two prompts
OF_DIFFUSERS = (1.28, 1.32)  # times as fast as Diffusers at most, with the same torch: 406 and 420 ms against ours


@dataclass(frozen=True)
class Prediction:
    """Seconds of a guided step, for a column of `columns.COLUMNS`."""

    column: str
    seconds: float
    derived: str


def predict(card: str, counts: dict[int, Count] | None = None) -> list[Prediction]:
    """For "H100" or "H200"; `counts` are those of the two prompts' forwards, by their tokens of text."""
    rates = CARDS[card]
    counts = counts or {text: forward(1, [text]) for text in TEXT_TOKENS}
    attention = sum(count.flops[ATTENTION] for count in counts.values())
    products = sum(sum(count.flops.values()) for count in counts.values()) - attention
    moved = sum(sum(count.moved.values()) for count in counts.values())
    fused = FUSED * sum(IMAGE + text for text in counts) / rates.moved
    gemm, eight_bit = products / rates.products, products / rates.eight_bit
    cudnn, flash = attention / rates.cudnn, attention / rates.flash
    rest = moved / rates.moved
    rows = (
        ("eager", gemm + cudnn + rest, "products + cuDNN attention + bytes moved"),
        ("attention cudnn", gemm + cudnn + rest, "the same"),
        ("attention flash", gemm + flash + rest, "products + flash-2 attention + bytes moved"),
        ("compiled", gemm + cudnn + fused, "with each pass fused"),
        ("float8_e4m3fn, 8bit products", eight_bit + cudnn + rest, "products at the rate of row-wise fp8"),
        ("float8_e4m3fn, 8bit products, compiled", eight_bit + cudnn + fused, "both"),
        ("preset fast", SAVED * (gemm + cudnn + rest), "24 of 80 forwards"),
        (
            "float8_e4m3fn, 8bit products, compiled, preset fast",
            SAVED * (eight_bit + cudnn + fused),
            "all together",
        ),
    )
    return [Prediction(*row) for row in rows]


def beside(results: list[dict], device: str) -> list[dict]:
    """The predictions for a card beside what its columns measured; none for cards that nothing was predicted of."""
    card = next((name for name in CARDS if name in device), None)
    measured = {result["column"]: result.get("seconds") for result in results}
    return [
        {"column": p.column, "predicted": p.seconds, "measured": measured.get(p.column), "derived": p.derived}
        for p in (predict(card) if card else ())
    ]
