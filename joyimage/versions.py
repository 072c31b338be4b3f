"""The version of torch that is there, on which hangs what can be asked of it."""

from __future__ import annotations

import torch


def torch_version() -> tuple[int, int]:
    """Major and minor, such as (2, 13)."""
    major, minor, *_ = torch.__version__.split(".")
    return int(major), int(minor)
