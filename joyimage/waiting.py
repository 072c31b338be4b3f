"""How long a process that loads a model is waited for, and what is said of one that hangs."""

from __future__ import annotations

from .errors import JoyImageError
from .settings import whole

LOAD_SECONDS = 1800  # 50 GB at 30 MB/s: a process that takes longer to load the model hangs
MOST_LOAD_SECONDS = 86_400


def check_load_seconds(seconds: int) -> None:
    """Raise `JoyImageError` for a time to load a model in that is not a whole number of seconds within its range."""
    if not whole(seconds) or not 1 <= seconds <= MOST_LOAD_SECONDS:
        raise JoyImageError(
            f"load_seconds is {seconds!r:.40}; give the seconds in which a process must have loaded the model, "
            f"a whole number from 1 to {MOST_LOAD_SECONDS:,}"
        )


def not_loaded(where: str, seconds: int) -> str:
    """What is wrong where a process has not loaded the model in its time, and what to do."""
    return (
        f"{where} has not loaded the model within {seconds:,} seconds: see whether the disk of the weights and the "
        "device answer, or give it longer (load_seconds, --load-seconds)"
    )
