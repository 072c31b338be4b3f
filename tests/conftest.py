"""Markers by folder, for all tests, and lines about those that did not run."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from unrun import compares_with_diffusers, without_comfyui, without_diffusers

# The networks here are tiny: a second thread costs more in waiting than it brings.
torch.set_num_threads(1)

TESTS = Path(__file__).parent
DIFFUSERS = importlib.util.find_spec("diffusers") is not None


def pytest_ignore_collect(collection_path):
    """Diffusers needs Python 3.11, the package 3.10: there the tests that compare with it are left out."""
    return True if not DIFFUSERS and compares_with_diffusers(collection_path) else None


def pytest_collection_modifyitems(items):
    for item in items:
        for name in item.path.relative_to(TESTS).parts[:-1]:  # "comfy", and in it "browser"; "model"
            item.add_marker(name)


@pytest.fixture(scope="session", autouse=True)
def compiled_here(tmp_path_factory):
    """What torch compiles is kept by this run alone: one that was killed may have left half a library behind."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("inductor"))


def pytest_terminal_summary(terminalreporter):
    """Here, since with xdist no other conftest is read by the process that counts. `make test` has the line in a file
    too, to say it once more when the commands that follow are done."""
    if not DIFFUSERS:
        terminalreporter.write(without_diffusers(TESTS))
    line = without_comfyui(str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.write(line)
    if "UNRUN" in os.environ:
        Path(os.environ["UNRUN"]).write_text(line, encoding="utf-8")
