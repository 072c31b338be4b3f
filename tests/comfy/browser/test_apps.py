"""The pack's apps: opened without the graph, set by hand, run, and the result shown."""

from __future__ import annotations

import json

import pytest
from conftest import SCENE
from editor import Editor

from tools.client import TINY
from tools.workflows import load
from tools.workflows.parts import LOADERS

BOX, CAMERA = ".joyimage-box:visible", ".joyimage-sentence:visible"


def open_app(editor: Editor, name: str) -> None:
    """The shipped file with the bundled model on a scene of its kind, few steps, and past the frontend's tour."""
    file = load(name)
    bundled = dict.fromkeys(LOADERS.values(), TINY) | {"JoyImageLoadImage": SCENE}
    for node in file["nodes"]:
        if node["type"] in bundled:
            node["widgets_values"][0] = bundled[node["type"]]
    editor.load(file)
    steps = "app.graph.nodes.find(node => node.type === 'JoyImageEdit').widgets.find(w => w.name === 'steps')"
    editor.page.evaluate(f"() => {{ {steps}.value = 2 }}")
    skip = editor.page.get_by_role("button", name="Skip")
    if skip.is_visible():
        skip.click()
    editor.settle()


def run(editor: Editor, picture: str) -> None:
    before = len(editor.client.get("/history"))
    editor.page.get_by_role("button", name="Run", exact=True).click()
    editor.finish(before)
    editor.page.locator(f"img[src*='{picture}']").locator("visible=true").first.wait_for()


@pytest.fixture(autouse=True)
def graph_again(editor):
    yield
    editor.page.evaluate("app.extensionManager.command.execute('Comfy.ToggleLinear')")
    editor.settle()


def test_move_an_object(editor):
    open_app(editor, "Move an object (app)")
    editor.page.locator(f"{BOX} img[src]").wait_for()
    editor.drag(editor.at(f"{BOX} .joyimage-frame", 0.2, 0.2), editor.at(f"{BOX} .joyimage-frame", 0.6, 0.6))
    assert json.loads(editor.inputs("JoyImageMoveObject")["box"])["w"] == pytest.approx(0.4, abs=0.02)
    script = "app.graph.nodes.find(node => node.type === 'JoyImageMoveObject').widgets.find(w => w.name === 'object')"
    editor.page.evaluate(f"() => {{ {script}.value = 'pink cylinder' }}")
    run(editor, "move_an_object")


def test_move_the_camera(editor):
    open_app(editor, "Move the camera (app)")
    editor.page.get_by_role("button", name="Rear left").locator("visible=true").click()
    editor.settle()
    assert editor.inputs("JoyImageCamera")["yaw"] == -135
    assert "Yaw -135°" in editor.page.locator(CAMERA).text_content()
    run(editor, "move_the_camera")
