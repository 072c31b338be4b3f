"""A Ray of a test module's own: in its own folder, of which nothing is left, with the tests on its workers' path."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Where Rays that are started meanwhile keep their sockets: a short path, as those may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_TMPDIR", str(folder))
            patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
            patch.setenv("RAY_worker_niceness", "0")  # else workers wait for all that tests do beside them
            patch.delenv("RAY_ADDRESS", raising=False)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
