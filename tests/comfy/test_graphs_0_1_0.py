"""Graphs saved with 0.1.0, in the editor's form and as prompts: they open and run unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from joyimage.demo import asset
from tools.client import Graph

FOLDER = Path(__file__).parent / "graphs_0_1_0"
NAMES = sorted(file.name.removesuffix(".api.json") for file in FOLDER.glob("*.api.json"))


def read(name: str) -> dict:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_the_editors_form_gives_the_prompt_that_it_gave(client, monkeypatch, tmp_path, name):
    monkeypatch.setenv("HOME", str(tmp_path))  # where comfy-cli makes a folder when it is imported
    from comfy_cli.workflow_to_api import convert_ui_to_api

    now, then = convert_ui_to_api(read(f"{name}.json"), client.get("/object_info")), read(f"{name}.api.json")
    assert now.keys() == then.keys()
    for key, node in then.items():
        assert now[key]["class_type"] == node["class_type"]
        assert node["inputs"].items() <= now[key]["inputs"].items()


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_runs(client, base_directory, name):
    asset("move.png").save(base_directory / "input" / "example.png")
    graph = Graph(read(f"{name}.api.json"))
    for node in graph.values():
        short = {"steps": 1, "views": 2, "max_new_tokens": 4}
        node["inputs"] |= {key: value for key, value in short.items() if key in node["inputs"]}
        if node["class_type"] == "JoyImageLocate":  # which the bundled model knows
            node["inputs"]["object"] = "red cube"
    assert client.run(graph).outputs
