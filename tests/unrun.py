"""Tests that did not run: why, how many, and how to run them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

NO_COMFYUI = "there is no ComfyUI: `make comfyui` installs one, or set COMFYUI_PATH and COMFYUI_PYTHON"
ORACLE = re.compile(
    r"^\s*(?:(?:import|from) (?:diffusers|tools\.oracle|tools\.bench\.cases)|from tools import .*\boracle)\b",
    re.MULTILINE,
)


def without_comfyui(reasons: Iterable[str]) -> str:
    """One line about the tests that were skipped for these reasons, empty if a ComfyUI was there."""
    count = sum(NO_COMFYUI in reason for reason in reasons)
    tests = "1 NODE TEST" if count == 1 else f"{count} NODE TESTS"
    return f'{tests} DID NOT RUN: THERE IS NO COMFYUI. Run "make comfyui", then "make test".\n' if count else ""


def compares_with_diffusers(path: Path) -> bool:
    return path.suffix == ".py" and ORACLE.search(path.read_text(encoding="utf-8")) is not None


def without_diffusers(folder: Path) -> str:
    count = sum(map(compares_with_diffusers, folder.rglob("test_*.py")))
    return f"{count} FILES THAT COMPARE WITH DIFFUSERS DID NOT RUN: it is not installed, and needs Python 3.11.\n"
