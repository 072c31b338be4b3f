"""A run's loss as a picture, while it goes on and afterwards."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

from ..errors import JoyImageError

WIDTH, HEIGHT = 512, 256
LEFT, TOP, RIGHT, BOTTOM = 52, 14, 498, 226  # of the curve, in pixels
GROUND, FRAME, QUIET, STRONG, TEXT = "#1b1e25", "#3b4250", "#4b6a92", "#8ec5ff", "#c3cad6"
SMOOTHING = 0.05  # share of the steps over which the strong line is averaged


def loss_plot(losses: Mapping[int, float], steps: int) -> Image.Image:
    """The losses by step, of a run of `steps`: each in a quiet line, their running mean in a strong one.

    Raises `JoyImageError` without any.
    """
    if not losses:
        raise JoyImageError("there are no losses to draw yet")
    places, values = list(losses), list(losses.values())
    low, high = min(values), max(values)
    image = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)

    def points(heights: list[float]) -> list[tuple[float, float]]:
        unit = (BOTTOM - TOP) / ((high - low) or 1.0)
        return [
            (LEFT + (RIGHT - LEFT) * place / max(steps, 1), BOTTOM - unit * (height - low))
            for place, height in zip(places, heights, strict=True)
        ]

    draw.rectangle((LEFT, TOP, RIGHT, BOTTOM), outline=FRAME)
    for heights, colour, width in ((values, QUIET, 1), (smoothed(values, steps), STRONG, 2)):
        line = points(heights)
        draw.line(line if len(line) > 1 else line * 2, fill=colour, width=width)
    for value, y in ((high, TOP), (low, BOTTOM)):
        draw.text((LEFT - 6, y), f"{value:.3g}", TEXT, font, anchor="rm")
    draw.text((LEFT, BOTTOM + 6), "0", TEXT, font, anchor="la")
    draw.text((RIGHT, BOTTOM + 6), f"{steps} steps", TEXT, font, anchor="ra")
    draw.text((RIGHT - 8, TOP + 6), f"loss {smoothed(values, steps)[-1]:.4f}", STRONG, font, anchor="ra")
    return image


def smoothed(values: list[float], steps: int) -> list[float]:
    """The mean of each value and those before it, over a share of the run's steps."""
    window = max(1, round(SMOOTHING * steps))
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))]
