"""All pictures of a training set are opened before it begins; what cannot be used is named, and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import JoyImageError
from ..images import Size, cover
from ..settings import MAX_REFERENCES, check_base_size, check_text
from . import pictures
from .examples import Example
from .fitting import Sizes, fitting_sizes

MOST_ENLARGED = 2.0  # times, of a side; what was smaller would teach blur
SAME_SHAPE = 1.05  # the most that two aspects differ by and still count as one
LISTED = 20  # examples in a report

# what is being done, how many are done, of how many; may raise to cancel
Counting = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Unusable:
    """An example that is not trained on."""

    example: Example
    reason: str

    def __str__(self) -> str:
        name = str(self.example)
        return self.reason if self.reason.startswith(name) else f"{name}: {self.reason}"


@dataclass(frozen=True)
class Checked:
    """A training set after its check: what is trained on, at what sizes, and what is not."""

    examples: tuple[Example, ...]
    sizes: tuple[Sizes, ...]  # of each of them in pixels: the target's, then each control's
    unusable: tuple[Unusable, ...]
    cropped: int  # usable examples with a single control of another shape than the target's, which is cropped to it

    @property
    def buckets(self) -> dict[Sizes, int]:
        """How many examples there are of each sizes, the most frequent first: these can share a batch."""
        return dict(Counter(self.sizes).most_common())

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "examples": len(self.examples),
            "buckets": [{"sizes": sizes, "examples": count} for sizes, count in self.buckets.items()],
            "cropped": self.cropped,
            "unusable": [{"example": str(each.example), "reason": each.reason} for each in self.unusable],
        }

    def __str__(self) -> str:
        total = len(self.examples) + len(self.unusable)
        lines = [f"{len(self.examples)} of {total} examples can be used"]
        if self.cropped:
            lines.append(f"{self.cropped} have a control of another shape than the target's, which is cropped to it")
        lines += [f"not used: {each}" for each in self.unusable[:LISTED]]
        if (more := len(self.unusable) - LISTED) > 0:
            lines.append(f"not used: {more} more")
        return "\n".join(lines)


def check(
    examples: Sequence[Example], base_size: int | None, *, loss: str = "target", progress: Counting | None = None
) -> Checked:
    """Open every picture of every example, and fit it as training will.

    `loss` is "target", "mask" or "difference", as in the settings. Raises `JoyImageError` with the report if nothing
    can be used, and whatever `progress` raises.
    """
    check_base_size(base_size)
    usable: list[Example] = []
    sizes: list[Sizes] = []
    unusable: list[Unusable] = []
    seen: dict[tuple[str, ...], Example] = {}
    cropped = 0
    for i, example in enumerate(examples):
        if progress:
            progress("checked", i, len(examples))
        try:
            before, after = _check(example, base_size, loss)
            key = example.caption, *map(pictures.digest, example.pictures)
            if key in seen:
                raise JoyImageError(f"is the same as {seen[key]}")
        except (JoyImageError, OSError) as error:
            unusable.append(Unusable(example, str(error)))
            continue
        seen[key] = example
        usable.append(example)
        sizes.append(after)
        cropped += len(before) == 2 and _differ(*before)
    if progress:
        progress("checked", len(examples), len(examples))
    checked = Checked(tuple(usable), tuple(sizes), tuple(unusable), cropped)
    if not usable:
        raise JoyImageError("; ".join(("there is nothing to train on", *str(checked).splitlines())))
    return checked


def _check(example: Example, base_size: int | None, loss: str) -> tuple[list[Size], Sizes]:
    """Raise `JoyImageError` for an example that cannot be trained on; returns its sizes before and after fitting."""
    if not example.caption.strip():
        raise JoyImageError(_no_caption(example.target))
    check_text("its caption", example.caption)
    if len(example.controls) > MAX_REFERENCES:
        raise JoyImageError(f"has {len(example.controls)} controls; the model takes at most {MAX_REFERENCES}")
    if loss == "mask" and example.mask is None:
        raise JoyImageError("has no mask, by which the loss is to be weighted")
    if loss == "difference" and not example.controls:
        raise JoyImageError("has no control, from which the target could differ")
    loaded = [pictures.load(picture) for picture in example.pictures]
    before = [(image.height, image.width) for image in loaded]
    sizes = fitting_sizes(before[0], before[1:], base_size)
    for picture, image, size in zip(example.pictures, loaded, sizes, strict=True):
        cover(image, size)  # refuses what is too narrow
        _check_enlargement(picture, (image.height, image.width), size)
    if loss == "mask" and example.mask is not None:
        mask = pictures.load_mask(example.mask)
        if _differ((mask.height, mask.width), before[0]):
            raise JoyImageError(f"its mask is {mask.height} x {mask.width} (height x width), of another shape than it")
    return before, sizes


def _check_enlargement(picture: pictures.Picture, before: Size, after: Size) -> None:
    factor = max(after[0] / before[0], after[1] / before[1])
    if factor > MOST_ENLARGED:
        raise JoyImageError(
            f"{pictures.describe(picture)} is too small: {before[0]} x {before[1]} (height x width) would be enlarged "
            f"{factor:.1f} times, and more than {MOST_ENLARGED:g} teaches blur; give a smaller base size"
        )


def _no_caption(target: pictures.Picture) -> str:
    text = target.with_suffix(".txt") if isinstance(target, Path) else None
    if text is not None and text.is_file():
        return f"its caption {text.name} is empty"
    return "has no caption" + ("" if text is None else f": neither a text, such as {text.name}, nor one in a table")


def _differ(one: Size, other: Size) -> bool:
    return abs(math.log(one[0] / one[1] * other[1] / other[0])) > math.log(SAME_SHAPE)
