"""Markers by folder, for all tests."""

from pathlib import Path

import torch

# The networks here are tiny: a second thread costs more in waiting than it brings.
torch.set_num_threads(1)

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        for name in item.path.relative_to(TESTS).parts[:-1]:  # "comfy", and in it "browser"
            item.add_marker(name)
