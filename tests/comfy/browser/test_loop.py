"""The closed loop in the page: scores of candidates on Best of, views of a question as they are made."""

from __future__ import annotations

import re
from random import randrange

from conftest import SCENE

from tools.client import TINY
from tools.workflows import load
from tools.workflows.parts import LOADERS

SAID = "[...document.querySelectorAll('.joyimage-answer')].map(element => element.textContent).join('\\n')"
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
