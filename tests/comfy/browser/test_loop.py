"""The closed loop in the page: scores of candidates on Best of, views of a question as they are made."""

from __future__ import annotations

import re
from random import randrange

import pytest
from conftest import SCENE
from editor import LOAD
from pieces import NO_EXTRA

from tools.client import TINY
from tools.workflows import load
from tools.workflows.parts import LOADERS

SAID = "[...document.querySelectorAll('.joyimage-answer')].map(element => element.textContent).join('\\n')"
PICTURES = """([type, nodes_2]) => {
    const node = app.graph.nodes.find(node => node.type === type);
    const images = nodes_2 ? [...document.querySelectorAll(`[data-node-id="${node.id}"] img`)] : node.imgs ?? [];
    return images.filter(image => image.complete).map(image => new URL(image.src).pathname);
}"""
BELOW = """type => {
    const node = app.graph.nodes.find(node => node.type === type);
    const shown = document.querySelector(`[data-node-id="${node.id}"]`);
    const bottom = shown ? shown.offsetHeight - LiteGraph.NODE_TITLE_HEIGHT : node.size[1];
    const around = app.graph.groups.find(({pos, size}) => pos[0] <= node.pos[0] && node.pos[0] < pos[0] + size[0]);
    return node.pos[1] + bottom - around.pos[1] - around.size[1];
}"""
QUESTION = "Seen from the right, is the blue cone to the left or to the right of the pink cylinder?"


def opened(editor, name: str, **values) -> None:
    """A template on a bundled scene, with some inputs set in whichever nodes have them."""
    workflow = load(name)
    bundled = dict.fromkeys(LOADERS.values(), TINY) | {"JoyImageLoadImage": SCENE}
    for node in workflow["nodes"]:
        if node["type"] in bundled:
            node["widgets_values"][0] = bundled[node["type"]]
            node["properties"].pop("models", None)
    editor.load(workflow)
    editor.page.evaluate(
        "values => { for (const node of app.graph.nodes) for (const widget of node.widgets ?? [])"
        " if (widget.name in values) widget.value = values[widget.name]; }",
        values,
    )
    editor.view(0.4)


def test_best_of_says_what_each_candidate_is_worth(editor):
    opened(
        editor, "Best of four", object="red cube", steps=2, draft_steps=1, candidates=3, seed=randrange(10**6)
    )  # nothing is at hand
    editor.run()
    editor.page.wait_for_function(f"{SAID}.includes('seed')")
    said = editor.page.evaluate(SAID)
    scores = dict(re.findall(r"^(?:\* )?seed (\d+): (\d\.\d\d|not told)", said, re.MULTILINE))
    [best] = re.findall(r"^\* seed (\d+)", said, re.MULTILINE)
    assert 1 <= len(scores) <= 3 and float(scores[best]) == max(map(float, scores.values())), said


def test_a_question_brings_its_views(editor):
    opened(editor, "Reason with views", question=QUESTION, steps=4, seed=randrange(10**6))
    editor.run()
    editor.page.wait_for_function(f"{SAID}.includes('view: ')")
    view, answer = editor.page.evaluate(SAID).strip().splitlines()
    assert view == "view: yaw 90, pitch 0, zoom unchanged" and answer in ("to the left", "to the right")
    [*_, run] = editor.client.get("/history").values()
    shown = [output["images"] for output in run["outputs"].values() if output.get("images")]
    assert [len(images) for images in shown] == [1, 1]  # on the node, and on what is connected
    wait_for_pictures(editor, "JoyImageReason", 1)
    assert editor.page.evaluate(PICTURES, ["JoyImageReason", editor.nodes_2]) == ["/api/view"]
    assert editor.page.evaluate(BELOW, "JoyImageReason") <= 0  # its group is around it


def test_a_training_shows_its_loss_and_its_samples(editor, trains):
    if not trains:
        pytest.skip(NO_EXTRA)
    quick = {"steps": 2, "warm_up": 1, "cool_down": 0, "sample_every": 2, "teacher_steps": 2}
    opened(editor, "5 Try it - Train a LoRA", **quick, seed=randrange(10**6))
    editor.run(patience=2)
    wait_for_pictures(editor, "JoyImageTrainLora", 2)
    assert editor.page.evaluate(PICTURES, ["JoyImageTrainLora", editor.nodes_2]) == ["/api/view"] * 2
    assert editor.page.evaluate(BELOW, "JoyImageTrainLora") <= 0


def wait_for_pictures(editor, kind: str, count: int) -> None:
    script = f"given => ({PICTURES})(given).length === {count}"
    editor.page.wait_for_function(script, arg=[kind, editor.nodes_2], timeout=LOAD)
