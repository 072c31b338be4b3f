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
from .parallel.devices import Devices
from .parallel.shares import exchanged, share_of_memory, speed
from .quantisation.formats import Format, format_name
from .quantisation.kernels import described
from .settings import EXACT, MAX_REFERENCES, Shortcuts, check_products

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "meta")  # torch's, by their types


@dataclass(frozen=True)
class Several:
    """What it comes to that several devices share the forwards: `groups` (two where each pass of guidance has one) of
    so many `processes`. All of it is computed from the sizes, and nothing measured.
    """

    groups: int
    processes: int
    placement: Placement  # of the MMDiT, which is alone on each further device
    speed: float  # of a forward on one device, at most
    exchanged: int  # bytes that each device of a group sends in a forward

    @property
    def devices(self) -> int:
        return self.groups * self.processes

    def as_dict(self, reserve: int) -> dict[str, Any]:
        return {
            "devices": self.devices,
            "further_held": self.placement.held,
            "further_activations": self.placement.activations,
            "further_peak": reserve + self.placement.peak,
            "computed_forward_speed": round(self.speed, 2),
            "computed_guided_step_speed": round(self.groups * self.speed, 2),
            "exchanged": self.exchanged,
        }

    def lines(self, reserve: int) -> list[str]:
        held, activations = map(readable, (self.placement.held, self.placement.activations))
        share = f"a step with guidance takes {100 / self.groups / self.speed:.0f} % of one device's time at best"
        if self.groups > 1:
            share += f", one without {100 / self.speed:.0f} %"
        sent = f"; each sends {readable(self.exchanged)} in a forward, which takes time too" if self.exchanged else ""
        return [
            f"{self.devices} devices: the above is on the first; each other holds {held} of the MMDiT and "
            f"{activations} of activations, expected peak {readable(reserve + self.placement.peak)}",
            f"{share}: computed from counted operations, not measured{sent}",
        ]


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
    several: Several | None = None  # where more than one device shares the forwards

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
        several = None if self.several is None else self.several.as_dict(self.reserve)
        return {**own, "together": self.together, "peak": self.peak, "parts": parts, "several": several}

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
            *([] if self.several is None else self.several.lines(self.reserve)),
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
    devices: Devices | None = None,
) -> Plan:
    """Plan an edit with references of the target's size and two prompts of `text_tokens`.

    With `reference_every` above 1 the keys and values of the references are kept. With several `devices` it is the
    first's, beside what each other holds, and how much they save.

    Raises `JoyImageError` when the budget is too small, naming the least that works.
    """
    reserve = RESERVES.get(device, 0)
    pixels = size[0] * size[1]
    vision = needs.configs.encoder.vision_config
    context = text_tokens + references * pixels // (vision.patch_size * vision.spatial_merge_size) ** 2
    per_token = needs.configs.vae.spatial_factor**2 * math.prod(needs.configs.mmdit.patch_size)  # pixels
    tile = needs.tile(pixels, budget - reserve)
    groups, processes = (1, 1) if devices is None else (len(devices.groups), max(map(len, devices.groups)))
    targets, kept = pixels // per_token, references * pixels // per_token if reference_every > 1 else 0
    tokens = (1 + references) * targets + context
    shared = tokens if processes == 1 else share_of_memory(tokens, processes)
    activations = {
        "encoder": needs.encoder(references * max(pixels, MIN_PIXELS), 2 * text_tokens),
        "mmdit": needs.mmdit(shared, kept=-(-kept // processes)),
        "vae": needs.vae(pixels, tile),
    }
    placements = place_all(needs, activations, budget, reserve)
    several = None
    if devices is not None:
        config = needs.configs.mmdit
        sent = exchanged(config, tokens, targets, processes, needs.itemsize["mmdit"])
        several = Several(groups, processes, placements["mmdit"], speed(config, tokens, targets, processes), sent)
    where = tuple(placements[name] for name in activations)
    return Plan(budget, reserve, needs.weights, size, references, tile, where, several=several)


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
    guidance_devices: int | None = None,
    sequence_devices: int | None = None,
) -> Plan:
    """What `JoyImage.load` with these arguments would put where for an edit of this size; reads headers only.

    `dtype` is one of torch's or its name. Of `guidance_devices` and `sequence_devices` it takes the numbers, as these
    need not be on this machine. Raises as `load` does, and `JoyImageError` for a size or a number of references that
    an edit can not have.
    """
    if not 0 <= references <= MAX_REFERENCES:
        raise JoyImageError(f"{references} references; the model takes 0 to {MAX_REFERENCES}")
    shortcuts = Shortcuts(reference_every=reference_every)
    budget, size = parse_size(memory), check_size(size)
    check_products(products)
    kind = re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", str(device))
    if not kind:
        raise JoyImageError(f"there is no device {device!r}; use cpu, cuda, cuda:1 …")
    devices = _numbered(kind[1], guidance_devices, sequence_devices)
    needs, packed = open_needs(path, mmdit=mmdit, vae=vae, encoder=encoder, dtype=dtype)
    if devices is not None:
        devices.check_heads(needs.configs.mmdit.num_heads)
    made = plan(
        needs,
        budget,
        device=kind[1],
        size=size,
        references=references,
        reference_every=shortcuts.reference_every,
        devices=devices,
    )
    how = {name: described(form, products, kind[1]) for name, form in sorted(packed.items())}
    return dataclasses.replace(made, products=how)


def _numbered(kind: str, guidance: int | None, sequence: int | None) -> Devices | None:
    """Devices by their numbers, in the groups that they would be in."""
    row = None if sequence is None else [f"{kind}:{i}" for i in range(sequence)]
    pair = None if guidance is None else [f"{kind}:{i}" for i in range(guidance)]
    if pair and row:
        pair[1:] = row[len(row) // 2 : len(row) // 2 + 1] + pair[2:]
    return Devices.of(pair, row)


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
