"""Every template opened and run from the page: nothing lies over anything else afterwards, and nothing is red."""

from __future__ import annotations

from itertools import combinations

import pytest
from conftest import SCENE
from editor import Editor

from tools.client import TINY
from tools.workflows import load
from tools.workflows.graphs import WORKFLOWS
from tools.workflows.parts import LOADERS
from tools.workflows.try_it import WORKFLOWS as TRY_IT

WORK = [workflow.name for workflow in WORKFLOWS]
TRIED = [workflow.name for workflow in TRY_IT]
# What makes the graphs for the published model fit the bundled one; they work on a scene that it knows.
SMALL = {"steps": 2, "max_new_tokens": 8, "megapixels": 0.01, "views": 2, "width": 0, "height": 0}
BORDER = {"left": 16, "right": 16}
KNOWN = {"JoyImageLocate": "red cube", "JoyImageMoveObject": "red cube"}
SET = """([values, known, border]) => {
  for (const node of app.graph.nodes) {
    const given = {...values, ...(known[node.type] ? {object: known[node.type]} : {})};
    if (node.type === "ImagePadForOutpaint") Object.assign(given, border);
    for (const widget of node.widgets ?? []) if (widget.name in given) widget.value = given[widget.name];
  }
}"""
PLACES = """() => app.graph.nodes.map(node => {
  const shown = document.querySelector(`[data-node-id="${node.id}"]`);
  const [x, y, width, height] = node.boundingRect;
  const scale = app.canvas.ds.scale;
  const tall = shown ? Math.max(height, shown.getBoundingClientRect().height / scale) : height;
  return {title: node.title, left: x, top: y, right: x + width, bottom: y + tall};
})"""
RED = "() => app.graph.nodes.filter(node => node.has_errors).map(node => node.title)"


def open_template(editor: Editor, name: str) -> None:
    workflow = load(name)
    bundled = dict.fromkeys(LOADERS.values(), TINY) | {"JoyImageLoadImage": SCENE}
    for node in workflow["nodes"]:
        if name in WORK and node["type"] in bundled:
            node["widgets_values"][0] = bundled[node["type"]]
            node["properties"].pop("models", None)
    editor.load(workflow)
    if name in WORK:
        editor.page.evaluate(SET, [SMALL, KNOWN, BORDER])
    editor.view(0.4)


@pytest.mark.parametrize("name", TRIED + WORK)
def test_runs_and_stays_tidy(editor, name):
    open_template(editor, name)
    editor.run()
    editor.page.wait_for_timeout(1000)  # for the pictures of the run to come, and nodes to grow around them
    places = editor.page.evaluate(PLACES)
    for a, b in combinations(places, 2):
        apart = a["right"] <= b["left"] or b["right"] <= a["left"] or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
        assert apart, f"{a['title']} and {b['title']} overlap"
    assert editor.page.evaluate(RED) == []
