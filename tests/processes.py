"""Whether a process runs, for tests of those that are to end."""

from __future__ import annotations

import os
from pathlib import Path


def running(pid: int) -> bool:
    """Also where it is halted, but not where it has ended and nobody has asked how."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):  # the latter where it ends just now
        return False
