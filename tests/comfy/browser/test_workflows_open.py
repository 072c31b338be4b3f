"""The graphs in `workflows/` in the editor's own page, in both of its renderers."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("playwright", reason="no Playwright to open pages with: pip install playwright")

from tools.workflows import load
from tools.workflows import page as editor
from tools.workflows.loop import WORKFLOWS
from tools.workflows.parts import EDIT_FILES, PLUS_FILES
from tools.workflows.try_it import WORKFLOWS as TRY_IT

NAMES = [workflow.name for workflow in (*TRY_IT, *WORKFLOWS)]
FILES = {file for files in (EDIT_FILES, PLUS_FILES) for file in files.values()}
# comfy-cli sends the bbox input's default where the editor sends nothing.
UNASKED = {"x": 0, "y": 0, "width": 0, "height": 0}
ERRORS = '[data-testid="error-overlay"], [role=dialog], [role=alert]'
BOXES = """() => {
  const box = item => ({title: item.title, left: item.boundingRect[0], top: item.boundingRect[1],
    right: item.boundingRect[0] + item.boundingRect[2], bottom: item.boundingRect[1] + item.boundingRect[3]});
  return {nodes: app.graph.nodes.map(box), groups: app.graph.groups.map(box)};
}"""
SETTLED = 1.0  # seconds after which the page has looked for what is missing


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes 2.0"])
def page(request, client, base_directory):
    if editor.CHROMIUM is None:
        pytest.skip("no Chromium to open pages with: apt-get install chromium")
    for file in FILES:
        stand_in(base_directory / "models" / file.directory / file.name)
    with editor.open_page(f"http://{client.address}", request.param) as page:
        editor.open_workflow(page, {**load(NAMES[0]), "nodes": [], "links": []})
        page.wait_for_timeout(2 * SETTLED * editor.SECONDS)  # what the first graph, ComfyUI's own, has to say
        yield page
    for file in FILES:
        (base_directory / "models" / file.directory / file.name).unlink()


def stand_in(path: Path) -> None:
    """A file under the name of a published one, for graphs to be opened with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"stand_in": torch.zeros(1)}, path)


def complaints(page, workflow: dict) -> list[str]:
    """What the page shows or logs against a workflow that it opens."""
    found: list[str] = []

    def on_console(message) -> None:
        if message.type == "error":
            found.append(message.text)

    def on_error(error) -> None:
        found.append(str(error))

    page.on("console", on_console)
    page.on("pageerror", on_error)
    editor.open_workflow(page, workflow)
    page.wait_for_timeout(SETTLED * editor.SECONDS)
    page.remove_listener("console", on_console)
    page.remove_listener("pageerror", on_error)
    return found + page.locator(ERRORS).all_inner_texts()


@pytest.mark.parametrize("name", NAMES)
def test_opens_without_complaint_and_tidy(page, name):
    assert complaints(page, load(name)) == []
    boxes = page.evaluate(BOXES)
    for a, b in combinations(boxes["nodes"], 2):
        apart = a["right"] <= b["left"] or b["right"] <= a["left"] or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
        assert apart, f"{a['title']} and {b['title']} overlap"
    for node in boxes["nodes"]:
        if node["title"] != name:  # the note stands on its own
            assert any(encloses(group, node) for group in boxes["groups"]), f"{node['title']} sticks out of its group"


def encloses(group: dict, node: dict) -> bool:
    starts = group["left"] <= node["left"] and group["top"] <= node["top"]
    return starts and node["right"] <= group["right"] and node["bottom"] <= group["bottom"]


@pytest.mark.parametrize("name", NAMES)
def test_page_and_converter_agree(client, page, name, monkeypatch, tmp_path):
    """What the page posts is what comfy-cli makes of the file."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where comfy-cli makes a folder when it is imported
    from comfy_cli.workflow_to_api import convert_ui_to_api

    workflow = load(name)
    editor.open_workflow(page, workflow)
    converted = convert_ui_to_api(workflow, client.get("/object_info"))
    assert bare(editor.prompt(page)) == bare(converted)


def bare(prompt: dict) -> dict:
    """Classes and inputs, but for an empty bbox, which counts as none."""
    return {
        key: (node["class_type"], {name: value for name, value in node["inputs"].items() if value != UNASKED})
        for key, node in prompt.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "JoyImageNoSuchNode"}, "JoyImageNoSuchNode"),
        ({"type": "LoadImage", "widgets_values": ["absent.png", "image"]}, "edia"),
    ],
)
def test_something_missing_is_noticed(page, change, message):
    workflow = load("Edit an image")
    node = next(node for node in workflow["nodes"] if node["type"] == "JoyImageLoadImage")
    node.update(change)
    assert message in str(complaints(page, workflow))
