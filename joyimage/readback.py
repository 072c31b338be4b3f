"""Reading from a device without waiting for the work it was given since."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def read_later(flag: Tensor) -> Callable[[], bool]:
    """What reads a flag of one element, and waits for nothing that the device was given after this call."""
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    copy = flag.to("cpu", non_blocking=True)  # reading the flag itself would wait for all that is queued by then
    ready = torch.cuda.Event()
    ready.record(torch.cuda.current_stream(flag.device))

    def read() -> bool:
        ready.synchronize()
        return bool(copy)

    return read


def steps_behind(device: torch.device) -> int:
    """How many steps late to read what a loop checks in each: the next one is queued first where there is a queue."""
    return 0 if device.type == "cpu" else 1
