"""Every template opened and run from the page: nothing lies over anything else afterwards, and nothing is red."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from conftest import SCENE
from editor import Editor
from pieces import NO_EXTRA
from PIL import Image

from joyimage.boxes import box_from_json
from joyimage.inpainting import OVERLAP
from tools.client import TINY
from tools.workflows import load
from tools.workflows.graphs import WORKFLOWS
from tools.workflows.parts import LOADERS
from tools.workflows.try_it import WORKFLOWS as TRY_IT

WORK = [workflow.name for workflow in WORKFLOWS]
TRIED = [workflow.name for workflow in TRY_IT]
TRAINING, LONG = TRIED[-1], 6  # it trains for a minute
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
PICTURES = """async () => Promise.all([...document.querySelectorAll(".joyimage-compare img")].map(
  async image => [...new Uint8Array(await (await fetch(image.src)).arrayBuffer())]))"""
SHOWN = "[...document.querySelectorAll('.joyimage-compare img')].filter(image => image.naturalWidth).length === 2"
SAID = "[...document.querySelectorAll('.joyimage-answer')].map(element => element.textContent)"
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
def test_runs_and_stays_tidy(editor, name, trains):
    if name == TRAINING and not trains:
        pytest.skip(NO_EXTRA)
    open_template(editor, name)
    editor.run(LONG if name == TRAINING else 1)
    editor.page.wait_for_timeout(1000)  # for the pictures of the run to come, and nodes to grow around them
    places = editor.page.evaluate(PLACES)
    for a, b in combinations(places, 2):
        apart = a["right"] <= b["left"] or b["right"] <= a["left"] or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
        assert apart, f"{a['title']} and {b['title']} overlap"
    assert editor.page.evaluate(RED) == []


def test_a_trained_lora_changes_what_its_instruction_does(editor, trains):
    if not trains:
        pytest.skip(NO_EXTRA)
    _, changed = compared(editor, TRAINING)
    assert changed.mean() > 0.01  # where the car was
    assert "60 steps with 15 examples" in "\n".join(editor.page.evaluate(SAID))


def compared(editor: Editor, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What Compare shows of a template that has run: before, and where the picture after it is another."""
    open_template(editor, name)
    editor.run(LONG if name == TRAINING else 1)
    editor.page.wait_for_function(SHOWN)
    before, after = (np.asarray(Image.open(io.BytesIO(bytes(each)))) for each in editor.page.evaluate(PICTURES))
    return before, (before != after).any(-1)


def test_an_inpainted_picture_is_another_within_the_place_found_alone(editor):
    before, changed = compared(editor, "Inpaint by mask")
    said = [text for run in editor.client.get("/history").values() for each in run["outputs"].values() for text in
            each.get("text", ()) if text.startswith("red cube: ")]  # fmt: skip
    left, top, right, bottom = box_from_json(said[-1].partition(": ")[2], before.shape[1], before.shape[0])
    rows, columns = np.nonzero(changed)
    assert len(rows) and rows.min() >= int(top) and rows.max() <= bottom
    assert columns.min() >= int(left) and columns.max() <= right


def test_an_outpainted_picture_is_new_at_its_sides_alone(editor):
    before, changed = compared(editor, "Outpaint")
    inner = slice(BORDER["left"] + OVERLAP, before.shape[1] - BORDER["right"] - OVERLAP)
    assert changed[:, : BORDER["left"]].mean() > 0.9 and changed[:, -BORDER["right"] :].mean() > 0.9
    assert not changed[:, inner].any()
