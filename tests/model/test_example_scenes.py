"""The scenes of the node Example Scene: what the templates offer succeeds on each, by its truth."""

from __future__ import annotations

import pytest

from tools.tiny import example_trials, examples


@pytest.mark.parametrize("task", example_trials.TRIES)
def test_it_succeeds_on_every_scene(model, task):
    entries, scenes = examples.load_scenes()
    good = example_trials.TRIES[task](model, scenes)
    assert [entry["name"] for entry, right in zip(entries, good, strict=True) if not right] == []
