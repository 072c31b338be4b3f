"""A spatial node that is bypassed or muted: the picture goes on, and the run says which text is missing."""

from __future__ import annotations

import json

import pytest

from tools.client import TINY, Graph, Rejected
from tools.workflows import load
from tools.workflows.parts import LOADERS

MODES = {"muted": 2, "bypassed": 4}
BUNDLED = """([files]) => {
  for (const {type, widgets} of app.graph.nodes) if (type in files) widgets[0].value = files[type];
}"""
SET_MODE = "([type, mode]) => { app.graph.nodes.find(node => node.type === type).mode = mode }"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Move an object", "JoyImageMoveObject"),
        ("Rotate an object", "JoyImageRotateObject"),
        ("Move the camera", "JoyImageCamera"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_the_prompt_field_says_it(editor, mode, name, kind):
    workflow = load(name)
    [picture] = [node for node in workflow["nodes"] if node["type"] == "JoyImageLoadImage"]
    editor.load(workflow)
    editor.page.evaluate(BUNDLED, [dict.fromkeys(LOADERS.values(), TINY)])
    editor.page.evaluate(SET_MODE, [kind, MODES[mode]])
    if (mode, kind) != (
        "muted",
        "JoyImageMoveObject",
    ):  # what is muted gives nothing at all
        assert editor.inputs("JoyImageEncodePrompt")["images.image0"] == [str(picture["id"]), 0]
    with pytest.raises(Rejected) as refused:
        editor.client.submit(Graph(editor.prompt()))
    errors = json.loads(str(refused.value))["node_errors"].values()
    [(field, details)] = [(e["extra_info"]["input_name"], e["details"]) for node in errors for e in node["errors"]]
    assert field == "prompt" and "bypassed" in details
