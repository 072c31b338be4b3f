"""Checkpoints of a run, from which it goes on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic import Part, remove_abandoned
from ..errors import CheckpointError, JoyImageError, one_line
from .settings import Training

PATTERN = "step-*.pt"
FREE = ("steps", "save_every", "sample_every", "keep", "checkpointing")  # settings that leave a curve as it is


@dataclass(frozen=True, eq=False)
class State:
    """All that a run is, after `step` steps."""

    step: int
    weights: dict[str, Tensor]  # by the adapter's names
    average: dict[str, Tensor] | None  # of the weights, where one is kept
    engines: list[dict[str, Any]]


@dataclass(frozen=True)
class Identity:
    """What a run is of: a checkpoint of another is refused."""

    settings: Training
    base: str  # of the network's weights
    data: str  # of the samples
    processes: int = 1

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """What is not as it was saved, in words."""
        free = FREE if not self.settings.cool_down else FREE[1:]
        own = {name: getattr(self.settings, name) for name in self.settings.names() if name not in free}
        told = saved["settings"]
        found = [
            f"{name} {told.get(name)!r:.40}, now {value!r:.40}"
            for name, value in own.items()
            if told.get(name) != value
        ]
        for name, what in (("base", "another base model"), ("data", "other data"), ("processes", "other processes")):
            if saved[name] != getattr(self, name):
                found.append(what)
        return found


def save(folder: Path, state: State, identity: Identity, keep: int) -> Path:
    """Write a checkpoint, whole or not at all, and remove all but the newest `keep`.

    Raises `JoyImageError` or `OSError` if the disk is too small.
    """
    settings = {name: getattr(identity.settings, name) for name in identity.settings.names()}
    path = folder / f"step-{state.step:07}.pt"
    with Part(folder) as part:
        told = {"base": identity.base, "data": identity.data, "processes": identity.processes}
        try:
            torch.save({**vars(state), "settings": settings, **told}, part.path)
        except RuntimeError as error:  # what torch makes of a disk that is full
            raise JoyImageError(
                f"{path}: could not be written; is the disk full? ({one_line(str(error)):.80})"
            ) from error
        part.publish([path], replace=True)
    for old in saved(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest last."""
    return sorted(folder.glob(PATTERN))


def saved_steps(folder: Path) -> int:
    """Steps of the newest checkpoint in a folder, 0 without one."""
    paths = saved(folder)
    return int(paths[-1].stem.removeprefix("step-")) if paths else 0


def unusable(folder: Path, reason: str) -> str:
    """What is said of the newest checkpoint in a folder where it cannot be gone on from."""
    return f"{saved(folder)[-1]}: {reason}; remove it, and the run goes on from the one before"


def newest(folder: Path, identity: Identity, device: torch.device) -> State | None:
    """The newest checkpoint in a folder, None where there is none.

    Raises `JoyImageError` for one of a run with other settings, data or weights, or of one that is longer than asked
    for; `CheckpointError` for one that cannot be read.
    """
    remove_abandoned(folder)
    if not (paths := saved(folder)):
        return None
    path = paths[-1]
    try:
        found = torch.load(path, map_location=device, weights_only=True)
        state = State(*(found[name] for name in ("step", "weights", "average", "engines")))
        differences = identity.differences(found)
    except (MemoryError, torch.OutOfMemoryError, PermissionError):  # the file is in order
        raise
    except Exception as error:  # torch's own messages are long, and advise to trust what is damaged
        raise CheckpointError(unusable(folder, "is damaged, or no checkpoint of a run")) from error
    if differences:
        raise JoyImageError(
            f"{folder} holds a run of {'; '.join(differences)}: train with what it was begun with, or in another folder"
        )
    if state.step > identity.settings.steps:
        raise JoyImageError(
            f"{folder} holds a run of {state.step} steps already, more than {identity.settings.steps}: ask for more, "
            "or give another folder"
        )
    return state
