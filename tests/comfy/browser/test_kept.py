"""What every widget keeps: through undo, copies, subgraphs, a switch of the renderer, and a reload of the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import PICTURE
from editor import PERSISTED, Editor

from joyimage import spatial

LOOKS = 10
FRAME, BODY = ".joyimage-box .joyimage-frame", ".joyimage-box .joyimage-body"
TICK = ".joyimage-tick >> nth={}"  # of the ring, at 45 degrees each


@dataclass(frozen=True)
class Widget:
    """A node with one of our widgets, two things to do to it by hand, and what it shows of a value."""

    kind: str
    fresh: dict[str, Any]  # values that the node begins with
    gestures: tuple[Callable[[Editor], None], Callable[[Editor], None]]
    shows: Callable[[Editor, dict[str, Any]], bool]


def draw_box(editor: Editor) -> None:
    editor.drag(editor.at(FRAME, 0.2, 0.2), editor.at(FRAME, 0.6, 0.6))


def move_box(editor: Editor) -> None:
    editor.drag(editor.at(BODY), editor.at(FRAME, 0.6, 0.6))


def box_is_shown(editor: Editor, inputs: dict[str, Any]) -> bool:
    frame, body = (editor.page.locator(part).bounding_box() for part in (FRAME, BODY))
    shares = ((body["x"] - frame["x"]) / frame["width"], body["width"] / frame["width"])
    box = json.loads(inputs["box"])
    return shares == pytest.approx((box["x"], box["w"]), abs=0.02)


def turn_camera(editor: Editor) -> None:
    editor.drag(editor.at('[data-part="yaw"]'), editor.at(TICK.format(2)))


def raise_camera(editor: Editor) -> None:
    x, y = editor.at('[data-part="pitch"]')
    editor.drag((x, y), (x, y - 40))


def camera_is_shown(editor: Editor, inputs: dict[str, Any]) -> bool:
    return editor.page.locator(".joyimage-sentence").text_content() == spatial.camera(**inputs)


def end_orbit(editor: Editor) -> None:
    editor.drag(editor.at('[data-end="yaw_end"]'), editor.at(TICK.format(2)))


def start_orbit(editor: Editor) -> None:
    editor.drag(editor.at('[data-end="yaw_start"]'), editor.at(TICK.format(7)))


def orbit_is_shown(editor: Editor, inputs: dict[str, Any]) -> bool:
    text = editor.page.locator(".joyimage-space ~ .joyimage-bar .joyimage-status").text_content()
    angles = [f"{inputs[end]:g}°" for end in ("yaw_start", "yaw_end")]
    return text.startswith(f"{inputs['views']} views · {angles[0]} ") and text.endswith(angles[1])


def choose(side: str) -> Callable[[Editor], None]:
    def click(editor: Editor) -> None:
        editor.page.locator(f'[data-side="{side}"] text').click()
        editor.settle()

    return click


def side_is_shown(editor: Editor, inputs: dict[str, Any]) -> bool:
    chosen = editor.page.locator('[role=radio][aria-checked="true"]')
    return chosen.count() == 1 and chosen.get_attribute("data-side") == inputs["view"]


WIDGETS = {
    "box": Widget("JoyImageMoveObject", {"object": "red cup"}, (draw_box, move_box), box_is_shown),
    "camera": Widget("JoyImageCamera", {"yaw": 0, "pitch": 0}, (turn_camera, raise_camera), camera_is_shown),
    "orbit": Widget(
        "JoyImageOrbit", {"yaw_start": 0, "yaw_end": 180, "views": 5}, (end_orbit, start_orbit), orbit_is_shown
    ),
    "dial": Widget(
        "JoyImageRotateObject",
        {"object": "chair", "view": "front"},
        (choose("rear left"), choose("right")),
        side_is_shown,
    ),
}


@pytest.fixture(params=WIDGETS)
def widget(request) -> Widget:
    return WIDGETS[request.param]


@pytest.fixture
def node(editor: Editor, widget: Widget) -> int:
    node = editor.add(widget.kind, 400, 0, **widget.fresh)
    if widget.kind == "JoyImageMoveObject":
        editor.connect(editor.add("LoadImage", 0, 0, image=PICTURE), 0, node, "image")
        editor.page.wait_for_function("document.querySelector('.joyimage-box img')?.naturalWidth > 0")
    editor.ready()
    return node


def first_step(editor: Editor, widget: Widget) -> dict[str, Any]:
    """The node's inputs after the first gesture, which are not those that it began with."""
    before = editor.inputs(widget.kind)
    widget.gestures[0](editor)
    after = editor.inputs(widget.kind)
    assert after != before
    return after


def comes_to_show(editor: Editor, widget: Widget, inputs: dict[str, Any]) -> bool:
    """Whether the widget shows the inputs, now or when it has had the time to look around."""
    for _ in range(LOOKS):
        if widget.shows(editor, inputs):
            return True
        editor.settle()
    return False


def bring(editor: Editor, kind: str) -> None:
    """Put a node of the open graph where it can be worked."""
    editor.settle()
    x, y = editor.page.evaluate("kind => [...app.canvas.graph.nodes.find(n => n.type === kind).pos]", kind)
    editor.view(1, 300 - x, 100 - y)


def test_undo_and_redo(editor, widget, node):
    first = editor.inputs(widget.kind)
    second = first_step(editor, widget)
    widget.gestures[1](editor)
    third = editor.inputs(widget.kind)
    assert third != second
    for key, expected in (("z", second), ("z", first), ("y", second), ("y", third), ("z", second)):
        editor.press(f"Control+{key}")
        assert editor.inputs(widget.kind) == expected
    assert comes_to_show(editor, widget, second)
    widget.gestures[1](editor)  # the node that undo has made anew still takes one
    assert editor.inputs(widget.kind) == third
    assert comes_to_show(editor, widget, third)


def test_copied(editor, widget, node):
    value = first_step(editor, widget)
    script = "id => { app.canvas.select(app.graph.getNodeById(id)); app.canvas.copyToClipboard(); "
    editor.page.evaluate(script + "app.canvas.pasteFromClipboard({ connectInputs: true }) }", node)
    editor.settle()
    copies = [each["inputs"] for each in editor.prompt().values() if each["class_type"] == widget.kind]
    assert copies == [value, value]
    editor.page.evaluate("id => { app.graph.remove(app.graph.getNodeById(id)) }", node)
    bring(editor, widget.kind)
    assert comes_to_show(editor, widget, value)  # by the copy, which is alone now
    widget.gestures[1](editor)
    assert editor.inputs(widget.kind) != value


def test_in_a_subgraph(editor, widget, node):
    value = first_step(editor, widget)
    editor.page.evaluate("id => { app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])) }", node)
    editor.settle()
    assert editor.inputs(widget.kind) == value
    editor.page.evaluate("app.canvas.openSubgraph(app.graph.nodes.find(n => n.subgraph).subgraph)")
    bring(editor, widget.kind)
    assert comes_to_show(editor, widget, value)
    widget.gestures[1](editor)
    changed = editor.inputs(widget.kind)
    assert changed != value
    workflow = editor.save()
    editor.clear()
    editor.load(workflow)
    assert editor.inputs(widget.kind) == changed


def test_the_renderer_switched(editor, widget, node):
    value = first_step(editor, widget)
    switch = "async on => { await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on) }"
    for renderer in (not editor.nodes_2, editor.nodes_2):
        editor.page.evaluate(switch, renderer)
        editor.settle()
        assert editor.inputs(widget.kind) == value
        assert comes_to_show(editor, widget, value)
    widget.gestures[1](editor)
    assert editor.inputs(widget.kind) != value


def test_the_page_reloaded(editor, widget, node):
    value = first_step(editor, widget)
    editor.page.wait_for_timeout(PERSISTED)
    editor.page.evaluate("window.theOldPage = true")
    editor.reload()
    assert not editor.page.evaluate("'theOldPage' in window")
    assert editor.inputs(widget.kind) == value
    assert comes_to_show(editor, widget, value)
    widget.gestures[1](editor)
    assert editor.inputs(widget.kind) != value


@pytest.mark.parametrize("scale", [0.4, 2])
def test_in_a_zoomed_graph(editor, widget, node, scale):
    editor.view(scale, 80 - 400 * scale, 150 if scale < 1 else 20)  # below the page's buttons
    assert comes_to_show(editor, widget, first_step(editor, widget))
