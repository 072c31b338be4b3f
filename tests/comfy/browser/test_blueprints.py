"""The pack's blueprints, put into a graph as from the node library: used on the outside, and run."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import SCENE
from editor import Editor

from joyimage import spatial

# As the frontend does it when a blueprint is chosen or dropped.
INSERT = """async name => {
    const served = await (await app.api.fetchApi('/global_subgraphs')).json();
    const [id] = Object.entries(served).find(([, entry]) => entry.name === name);
    const file = JSON.parse((await (await app.api.fetchApi(`/global_subgraphs/${id}`)).json()).data);
    const pasted = {nodes: file.nodes, subgraphs: file.definitions.subgraphs};
    const [node] = app.canvas._deserializeItems(pasted, {position: [300, 0]}).nodes.values();
    return node.id;
}"""
SET = """([id, values]) => {
    for (const widget of app.graph.getNodeById(id).widgets)
        if (widget.name in values) { widget.value = values[widget.name]; widget.callback?.(widget.value); }
}"""
FILES = dict.fromkeys(("model", "encoder", "vae"), "tiny (bundled)")
# Those on the outside: the classic renderer keeps the elements of nodes that are not to be seen.
BOX, DIAL, ANSWER = ".joyimage-box:visible", ".joyimage-dial:visible", ".joyimage-answer:visible"
FRAME, BODY = f"{BOX} .joyimage-frame", f"{BOX} .joyimage-body"


def insert(editor: Editor, name: str, **values: Any) -> int:
    """Put a blueprint beside a scene, to be run with few steps of the bundled model."""
    scene = editor.add("LoadImage", 0, 0, image=SCENE)
    node = editor.page.evaluate(INSERT, f"{name} (JoyImage)")
    editor.page.evaluate(SET, [node, {**FILES, "steps": 2, **values}])
    editor.connect(scene, 0, node, "image")
    editor.settle()
    return node


def save(editor: Editor, node: int) -> None:
    editor.connect(node, 0, editor.add("PreviewImage", 720, 0), "images")


def test_edit_image(editor):
    save(editor, insert(editor, "Edit Image", prompt="Make the ground green."))
    sent = editor.inputs("JoyImageEdit")
    assert (sent["prompt"], sent["steps"]) == ("Make the ground green.", 2)
    editor.run()


def test_move_object_by_a_box_on_the_outside(editor):
    node = insert(editor, "Move Object", object="red cube")
    save(editor, node)
    editor.page.locator(f"{BOX} img[src]").wait_for()
    editor.drag(editor.at(FRAME, 0.2, 0.2), editor.at(FRAME, 0.6, 0.6))
    editor.drag(editor.at(BODY), editor.at(FRAME, 0.6, 0.6))
    sent = editor.inputs("JoyImageMoveObject")
    assert sent["object"] == "red cube"
    assert json.loads(sent["box"]) == {side: pytest.approx(0.4, abs=0.02) for side in "xywh"}
    editor.run()


def test_two_of_them_have_a_box_each(editor):
    insert(editor, "Move Object", object="red cube")
    editor.drag(editor.at(FRAME, 0.2, 0.2), editor.at(FRAME, 0.6, 0.6))
    editor.page.evaluate(INSERT, "Move Object (JoyImage)")
    moved = [node["inputs"] for node in editor.prompt().values() if node["class_type"] == "JoyImageMoveObject"]
    assert sorted(bool(inputs["box"]) for inputs in moved) == [False, True]


def test_the_box_is_kept_over_saving_and_opening(editor):
    insert(editor, "Move Object", object="red cube")
    editor.drag(editor.at(FRAME, 0.2, 0.2), editor.at(FRAME, 0.6, 0.6))
    drawn = editor.inputs("JoyImageMoveObject")["box"]
    assert drawn
    editor.load(editor.save())
    editor.view()
    assert editor.inputs("JoyImageMoveObject")["box"] == drawn
    editor.drag(editor.at(BODY), editor.at(FRAME, 0.6, 0.6))
    assert json.loads(editor.inputs("JoyImageMoveObject")["box"])["x"] == pytest.approx(0.4, abs=0.02)


def test_rotate_object_by_the_dial_on_the_outside(editor):
    save(editor, insert(editor, "Rotate Object", object="red cube"))
    editor.page.locator(f'{DIAL} [data-side="rear left"]').click()
    editor.settle()
    sent = editor.inputs("JoyImageRotateObject")
    assert (sent["object"], sent["view"]) == ("red cube", "rear left")
    editor.run()


def test_move_camera_by_its_view_on_the_outside(editor):
    save(editor, insert(editor, "Move Camera"))
    editor.page.get_by_role("button", name="Rear left").click()
    editor.settle()
    sent = editor.inputs("JoyImageCamera")
    assert (sent["yaw"], sent["pitch"], sent["zoom"]) == (-135, 0, "unchanged")
    shown = editor.page.locator(".joyimage-sentence:visible").text_content()
    assert shown == spatial.camera(-135, 0, "unchanged")
    editor.run()


def test_ask_shows_its_answer_on_the_outside(editor):
    insert(editor, "Ask", question="How many objects are there?")
    editor.run()
    editor.page.locator(ANSWER).filter(has_text=re.compile(r"\w")).wait_for()
