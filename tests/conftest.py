"""Markers by folder, for all tests, and a line about those that did not run."""

import os
from pathlib import Path

import torch
from unrun import said

# The networks here are tiny: a second thread costs more in waiting than it brings.
torch.set_num_threads(1)

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        for name in item.path.relative_to(TESTS).parts[:-1]:  # "comfy", and in it "browser"
            item.add_marker(name)


def pytest_terminal_summary(terminalreporter):
    """Here, since with xdist no other conftest is read by the process that counts. `make test` has the line in a file
    too, to say it once more when the commands that follow are done."""
    line = said(str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.write(line)
    if "UNRUN" in os.environ:
        Path(os.environ["UNRUN"]).write_text(line, encoding="utf-8")
