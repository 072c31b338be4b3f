"""The tools that run long: what they plan, and what they find wrong."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from PIL import Image
from safetensors.torch import save_file

from joyimage.images import save_png
from tools import kills
from tools.client import Graph
from tools.soak.__main__ import plan, summarise
from tools.soak.graphs import KINDS, LONG, WRONG, drafted


def test_a_soak_mixes_all_kinds_and_interrupts_long_ones():
    planned = plan(500, 20, random.Random(0))
    counts = Counter(kind for kind, _ in planned)
    assert counts.keys() == KINDS.keys() and len(KINDS) >= 10
    assert max(counts.values()) - min(counts.values()) <= 1
    interrupted = [kind for kind, stop in planned if stop]
    assert len(interrupted) == 20 and set(interrupted) <= set(LONG)
    assert not set(LONG) & set(WRONG)


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_vary_and_refer_to_their_own_nodes(kind):
    chance = random.Random(0)
    first, second = (drafted(kind, chance) for _ in range(2))
    assert first != second
    for node in Graph(first).values():
        links = [value for value in node["inputs"].values() if isinstance(value, list)]
        assert all(key in first for key, _ in links)


@pytest.mark.parametrize(("growth", "flat"), [(0.0, True), (0.02, True), (0.05, False), (-0.05, False)])
def test_memory_that_moves_is_seen(growth, flat):
    """It rises evenly, on top of what the first prompts load."""
    count, start = 500, 2**30
    resident = [start * (0.5 if i < 50 else 1 + growth * (i - 50) / (count - 50)) for i in range(count)]
    records = [{"kind": "edit", "outcome": "answered", "seconds": 1.0, "resident": each} for each in resident]
    summary = summarise(records)
    assert summary["flat"] is flat
    assert summary["growth"] == pytest.approx(growth * 0.9, abs=2e-3)


def test_too_few_prompts_say_nothing_of_memory():
    assert summarise([{"kind": "ask", "outcome": "answered", "seconds": 1.0, "resident": 1}] * 60)["flat"] is None


def test_what_a_killed_run_may_do_to_a_folder_is_seen(tmp_path):
    for name in ("kept.png", "lost.png", "replaced.png"):
        save_png(Image.new("RGB", (8, 8)), tmp_path / name, {})
    before = kills.contents(tmp_path)
    (tmp_path / "lost.png").unlink()
    save_png(Image.new("RGB", (8, 8), "red"), tmp_path / "replaced.png", {})
    (tmp_path / "half.png").write_bytes((tmp_path / "kept.png").read_bytes()[:40])
    (tmp_path / ".joyimage-0.part").write_bytes(b"")
    after = kills.contents(tmp_path)
    assert kills.compared(before, after, tmp_path, ()) == [
        "lost.png is lost", "replaced.png is replaced", "half.png is damaged",
    ]  # fmt: skip
    assert kills.compared(before, after, tmp_path, ("replaced.png",)) == ["lost.png is lost", "half.png is damaged"]
    assert [path.name for path in kills.parts(tmp_path)] == [".joyimage-0.part"]


def test_weights_that_do_not_load_count_as_damaged(tmp_path):
    save_file({}, tmp_path / "converted.safetensors")
    assert not kills.whole(tmp_path / "converted.safetensors")
