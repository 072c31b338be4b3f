"""Which devices share the forwards of a picture, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import JoyImageError, counted

GUIDANCE_PASSES = 2


@dataclass(frozen=True)
class Devices:
    """Groups of devices: each pass of guidance goes to one group, whose devices have a part of its tokens each.

    The first device is the leader's.
    """

    groups: tuple[tuple[str, ...], ...]

    @classmethod
    def of(
        cls, guidance: Sequence[str] | None = None, sequence: Sequence[str] | None = None, device: str | None = None
    ) -> Devices | None:
        """The devices that are named: `guidance` two, one for each pass, `sequence` at least two, for one pass at a
        time, or None where neither is. With both, those of `sequence` are halved, and each pass has a half, which
        begins with its device of `guidance`. `device` is the one that the rest of the model is on.

        Raises `JoyImageError` for other numbers of devices, and for a `device` that is not the first.
        """
        if guidance is None and sequence is None:
            return None
        given = {"guidance_devices": guidance, "sequence_devices": sequence}
        named = {name: _names(name, devices) for name, devices in given.items() if devices is not None}
        pair, row = (named.get(name, ()) for name in given)
        if guidance is not None and len(pair) != GUIDANCE_PASSES:
            count = counted(len(pair), "device")
            raise JoyImageError(f"guidance_devices names {count}; give two, one for each pass of guidance")
        if sequence is not None and len(row) < 2:
            raise JoyImageError("sequence_devices names one device; give at least two, or leave it out")
        groups = tuple((one,) for one in pair) if sequence is None else (row,) if guidance is None else halves(row)
        if guidance is not None and tuple(group[0] for group in groups) != pair:
            raise JoyImageError(
                f"sequence_devices {','.join(row)} goes in two halves, which have to begin with the guidance_devices: "
                f"{','.join(group[0] for group in groups)}, not {','.join(pair)}"
            )
        if device is not None and str(device) != groups[0][0]:
            raise JoyImageError(
                f"the device is {device}, and the first of {next(iter(named))} is {groups[0][0]}: leave the device "
                "out, or name it first"
            )
        return cls(groups)

    def check_heads(self, heads: int) -> None:
        """Raise `JoyImageError` for more devices in a group than an attention of so many heads keeps at work."""
        if (longest := max(map(len, self.groups))) > heads:
            most = heads * len(self.groups)
            raise JoyImageError(
                f"sequence_devices gives each forward {longest} devices, and the model's attention has {heads} heads, "
                f"of which each device needs one: name at most {most}"
            )

    @property
    def shared_cards(self) -> list[str]:
        """Those that are named more than once, but for the processor, which has room for many."""
        names = [f"{name}:0" if name.isalpha() else name for name in self.names if name.partition(":")[0] != "cpu"]
        return sorted({name for name in names if names.count(name) > 1})

    @property
    def names(self) -> list[str]:
        """All of them, the leader's first."""
        return [name for group in self.groups for name in group]


def halves(row: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if len(row) % GUIDANCE_PASSES:
        raise JoyImageError(
            f"with guidance_devices, sequence_devices is halved, and it names {len(row)}: give an even number"
        )
    middle = len(row) // GUIDANCE_PASSES
    return row[:middle], row[middle:]


def _names(name: str, devices: Sequence[str]) -> tuple[str, ...]:
    if isinstance(devices, str) or not isinstance(devices, Sequence) or not devices:
        raise JoyImageError(f'{name} is {devices!r:.60}; give a list of devices, such as ["cuda:0", "cuda:1"]')
    return tuple(map(str, devices))
