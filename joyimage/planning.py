"""What will be where under a memory budget, told from the files' headers: `joyimage plan`."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoints.folders import open_model
from .checkpoints.outlines import outline
from .encoder.limits import MIN_PIXELS
from .errors import JoyImageError
from .images import check_size
from .memory.budget import RESERVES, Needs, Placement, parse_size, place_all, readable
from .quantisation.formats import Format, format_name
from .quantisation.kernels import described
from .settings import EXACT, MAX_REFERENCES, Shortcuts, check_products

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "meta")  # torch's, by their types


@dataclass(frozen=True)
class Plan:
    """What will be where for a size, and the expected peak. `placements` are in the order in which the parts work."""

    budget: int
    reserve: int
    weights: int  # of all parts
    size: tuple[int, int]
    references: int
    tile: int | None
    placements: tuple[Placement, ...]
    products: dict[str, str] = dataclasses.field(default_factory=dict)  # what multiplies quantised weights, by format

    @property
    def together(self) -> bool:
        """Whether all parts stay on the device because none has to make room."""
        return self._together <= self.budget

    @property
    def _together(self) -> int:
        return self.reserve + self.weights + max(placement.activations for placement in self.placements)

    @property
    def peak(self) -> int:
        """Expected bytes, the reserve included."""
        return self._together if self.together else self.reserve + max(p.peak for p in self.placements)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; all amounts are bytes."""
        parts = [
            {
                **dataclasses.asdict(placement.part),
                "weights": placement.part.weights,
                "activations": placement.activations,
                "held": placement.held,
                "streamed": placement.streamed,
                "resident": placement.resident,
                "peak": placement.peak,
            }
            for placement in self.placements
        ]
        names = ("budget", "reserve", "weights", "size", "references", "tile", "products")
        own = {name: getattr(self, name) for name in names}
        return {**own, "together": self.together, "peak": self.peak, "parts": parts}

    def __str__(self) -> str:
        height, width = self.size
        row = "{:<9}{:>10}{:>10}{:>13}{:>10}{:>10}  {}".format
        lines = [
            f"{height}x{width} pixels, references: {self.references}, in {readable(self.budget)}",
            row("", "weights", "on device", "activations", "peak", "streamed", "where"),
            *(
                row(
                    p.part.name,
                    *map(readable, (p.part.weights, p.held, p.activations, p.peak, p.streamed)),
                    self._where(p),
                )
                for p in self.placements
            ),
            f"{'reserve':<9}{readable(self.reserve):>43}",
            f"expected peak {readable(self.peak)}; "
            + ("all parts stay on the device" if self.together else "each part is on the device while it works"),
            *(f"products of {name}: {how}" for name, how in self.products.items()),
        ]
        return "\n".join(line.rstrip() for line in lines)

    def _where(self, placement: Placement) -> str:
        counts = [
            f"{len(stay)} of {len(group.blocks)} {group.name} stay, {len(group.blocks) - len(stay)} stream"
            for group, stay in zip(placement.part.groups, placement.resident, strict=True)
            if len(stay) < len(group.blocks)
        ]
        tiles = f" in tiles of {self.tile} pixels" if placement.part.name == "vae" and self.tile else ""
        return (", ".join(counts) or "whole") + tiles


def plan(
    needs: Needs,
    budget: int,
    *,
    device: str = "cuda",
    size: tuple[int, int] = (1024, 1024),
    references: int = 1,
    text_tokens: int = 300,
    reference_every: int = 1,
) -> Plan:
    """Plan an edit with references of the target's size and two prompts of `text_tokens`.

    With `reference_every` above 1 the keys and values of the references are kept.

    Raises `JoyImageError` when the budget is too small, naming the least that works.
    """
    reserve = RESERVES.get(device, 0)
    pixels = size[0] * size[1]
    vision = needs.configs.encoder.vision_config
    context = text_tokens + references * pixels // (vision.patch_size * vision.spatial_merge_size) ** 2
    per_token = needs.configs.vae.spatial_factor**2 * math.prod(needs.configs.mmdit.patch_size)  # pixels
    tile = needs.tile(pixels, budget - reserve)
    activations = {
        "encoder": needs.encoder(references * max(pixels, MIN_PIXELS), 2 * text_tokens),
        "mmdit": needs.mmdit(
            (1 + references) * pixels // per_token + context,
            kept=references * pixels // per_token if reference_every > 1 else 0,
        ),
        "vae": needs.vae(pixels, tile),
    }
    placements = place_all(needs, activations, budget, reserve)
    return Plan(budget, reserve, needs.weights, size, references, tile, tuple(placements[name] for name in activations))


def plan_model(
    path: str | Path | None = None,
    *,
    memory: str | int,
    mmdit: str | Path | None = None,
    vae: str | Path | None = None,
    encoder: str | Path | None = None,
    device: str = "cuda",
    dtype: torch.dtype | str | None = None,
    size: tuple[int, int] = (1024, 1024),
    references: int = 1,
    reference_every: int = 1,
    products: str = EXACT,
) -> Plan:
    """What `JoyImage.load` with these arguments would put where for an edit of this size; reads headers only.

    `dtype` is one of torch's or its name. Raises as `load` does, and `JoyImageError` for a size or a number of
    references that an edit can not have.
    """
    if not 0 <= references <= MAX_REFERENCES:
        raise JoyImageError(f"{references} references; the model takes 0 to {MAX_REFERENCES}")
    shortcuts = Shortcuts(reference_every=reference_every)
    budget, size = parse_size(memory), check_size(size)
    check_products(products)
    kind = re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", str(device))
    if not kind:
        raise JoyImageError(f"there is no device {device!r}; use cpu, cuda, cuda:1 …")
    needs, packed = open_needs(path, mmdit=mmdit, vae=vae, encoder=encoder, dtype=dtype)
    made = plan(
        needs, budget, device=kind[1], size=size, references=references, reference_every=shortcuts.reference_every
    )
    how = {name: described(form, products, kind[1]) for name, form in sorted(packed.items())}
    return dataclasses.replace(made, products=how)


def open_needs(
    path: str | Path | None = None,
    *,
    mmdit: str | Path | None = None,
    vae: str | Path | None = None,
    encoder: str | Path | None = None,
    dtype: torch.dtype | str | None = None,
) -> tuple[Needs, dict[str, Format]]:
    """What the networks in some files need, from their headers, and the formats of quantised weights by name.

    The arguments are those of `JoyImage.load`, and it raises as that does.
    """
    chosen = None if dtype is None else format_name(dtype)
    if str(path) == "tiny":
        from . import tiny  # here: nobody else needs it

        path, mmdit, vae, encoder, chosen = None, *tiny.FILES.values(), "float32"
    sources = open_model(path, mmdit=mmdit, vae=vae, encoder=encoder)
    needs = Needs(
        encoder=outline(sources["encoder"], chosen),
        mmdit=outline(sources["mmdit"], chosen),
        vae=outline(sources["vae"], "float32"),
    )
    return needs, sources["mmdit"].packed | sources["encoder"].packed
