"""Tests that did not run: why, how many, and how to run them."""

from __future__ import annotations

from collections.abc import Iterable

NO_COMFYUI = "there is no ComfyUI: `make comfyui` installs one, or set COMFYUI_PATH and COMFYUI_PYTHON"


def said(reasons: Iterable[str]) -> str:
    """One line about the tests that were skipped for these reasons, empty if a ComfyUI was there."""
    count = sum(NO_COMFYUI in reason for reason in reasons)
    tests = "1 NODE TEST" if count == 1 else f"{count} NODE TESTS"
    return f'{tests} DID NOT RUN: THERE IS NO COMFYUI. Run "make comfyui", then "make test".\n' if count else ""
