"""Options for workers that share a command's work, on this machine or a cluster."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import JoyImageError
from ..scale.settings import Pool

NUMBERS = {"workers": int, "gpus_per_worker": float, "cpus_per_worker": float}


def add_pool(group: argparse._ActionsContainer) -> None:
    for name, of in NUMBERS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=of, metavar="N", help=Pool.purpose(name))
    group.add_argument("--address", help=Pool.purpose("address"))


def pool_of(options: argparse.Namespace, **others: Any) -> Pool:
    """Raises `JoyImageError` for devices that a worker cannot be given."""
    if options.device and ":" in options.device:
        raise JoyImageError(f"--device {options.device}: workers get GPUs of their own; leave the number out")
    if options.guidance_devices or options.sequence_devices:
        raise JoyImageError("workers have a device each: leave out --guidance-devices and --sequence-devices")
    given = {name: getattr(options, name) for name in (*NUMBERS, "address")}
    if hasattr(options, "load_seconds"):  # of commands whose workers hold a model
        given["load_seconds"] = options.load_seconds
    if options.device == "cpu" and given["gpus_per_worker"] is None:
        given["gpus_per_worker"] = 0
    return Pool(**given, **others)
