"""The red box as numbers: four fields in pixels, and what the server said of it."""

from __future__ import annotations

import json

import pytest
from conftest import PICTURE
from editor import Editor
from test_blueprints import FRAME as OUTSIDE
from test_blueprints import insert

NODE = "JoyImageMoveObject"
FRAME, STATUS, WRONG = ".joyimage-box .joyimage-frame", ".joyimage-remarks .joyimage-status", ".joyimage-wrong:visible"
WIDTH, HEIGHT = 320, 240  # of the picture
SCENE_SIDE = 64
NAMES = {"x": "x: left edge", "y": "y: top edge", "w": "w: width", "h": "h: height"}


@pytest.fixture
def move(editor: Editor) -> int:
    """Load Image and Move Object, connected; the id of the latter."""
    picture = editor.add("LoadImage", 0, 0, image=PICTURE)
    node = editor.add(NODE, 400, 0, object="red cup")
    editor.connect(picture, 0, node, "image")
    editor.ready()
    editor.page.wait_for_function(f"document.querySelector('.joyimage-box img').naturalWidth === {WIDTH}")
    return node


def field(editor: Editor, side: str):
    """As a screen reader finds it."""
    return editor.page.get_by_role("textbox", name=f"{NAMES[side]} in pixels").locator("visible=true")


def shown(editor: Editor) -> tuple[str, ...]:
    return tuple(field(editor, side).input_value() for side in "xywh")


def type_in(editor: Editor, side: str, text: str, end: str = "Enter") -> None:
    field(editor, side).click()
    editor.page.keyboard.type(text)
    editor.press(end)


def pixels(editor: Editor, width: int = WIDTH, height: int = HEIGHT) -> tuple[float, ...]:
    box = json.loads(editor.inputs(NODE)["box"])
    return tuple(round(box[side] * size, 2) for side, size in zip("xywh", (width, height) * 2, strict=True))


def test_a_drag_sets_the_numbers(editor, move):
    assert shown(editor) == ("", "", "", "")
    editor.drag(editor.at(FRAME, 0.25, 0.2), editor.at(FRAME, 0.75, 0.6))
    assert tuple(map(int, shown(editor))) == pytest.approx(pixels(editor), abs=1)
    editor.press("Delete")
    assert shown(editor) == ("", "", "", "")


def test_numbers_set_the_box(editor, move):
    for side, text in zip("wxhy", ("100", "40", "50.4", "１２"), strict=True):
        type_in(editor, side, text)
    assert shown(editor) == ("40", "12", "100", "50")
    assert pixels(editor) == (40, 12, 100, 50)
    frame, body = (editor.page.locator(part).bounding_box() for part in (FRAME, ".joyimage-body"))
    assert (body["x"] - frame["x"]) / frame["width"] == pytest.approx(40 / WIDTH, abs=0.005)
    type_in(editor, "x", "1000")
    type_in(editor, "y", "-5")
    type_in(editor, "h", "900")
    assert pixels(editor) == (WIDTH - 100, 0, 100, HEIGHT)  # kept inside
    type_in(editor, "w", "0")
    assert pixels(editor)[2] == 1
    editor.press("Control+z")
    editor.settle()
    assert shown(editor)[2] == "1"  # the field's own undo, if anything: the graph is left alone


def test_a_number_is_taken_on_leaving_and_given_up_with_escape(editor, move):
    type_in(editor, "w", "120", end="Tab")
    assert shown(editor)[2] == "120"
    before = editor.inputs(NODE)["box"]
    type_in(editor, "w", "77", end="Escape")
    type_in(editor, "x", "abc")
    type_in(editor, "y", "")
    assert editor.inputs(NODE)["box"] == before
    assert shown(editor)[2] == "120"


def test_undo_takes_a_number_back(editor, move):
    type_in(editor, "w", "100")
    type_in(editor, "w", "50")
    editor.page.mouse.click(*editor.at(".joyimage-box", 0.01, 0.99))
    for before in ("100", ""):
        editor.press("Control+z")
        editor.settle()
        assert shown(editor)[2] == before


def test_keys_in_a_field_are_the_fields(editor, move):
    type_in(editor, "w", "100")
    before = editor.inputs(NODE)["box"]
    place = editor.page.evaluate("[...app.canvas.ds.offset, ...app.graph.nodes.flatMap(node => [...node.pos])]")
    field(editor, "w").click()
    editor.press("ArrowLeft", "ArrowUp", "ArrowDown", "Shift+ArrowRight", "Delete", "Backspace", "Escape")
    assert editor.inputs(NODE)["box"] == before
    now = editor.page.evaluate("[...app.canvas.ds.offset, ...app.graph.nodes.flatMap(node => [...node.pos])]")
    assert now == place
    x, y = editor.at(".joyimage-number input")
    editor.drag((x, y), (x + 80, y + 80))
    assert editor.page.evaluate("app.graph.nodes.flatMap(node => [...node.pos])") == place[2:]


def test_they_fit_a_narrow_node(editor, move):
    editor.page.evaluate("id => { const node = app.graph.getNodeById(id); node.setSize([340, node.size[1]]) }", move)
    editor.settle()
    for side, text in zip("wxhy", ("9", "9", "9", "9"), strict=True):
        type_in(editor, side, text)
    whole = editor.page.locator(".joyimage:has(.joyimage-box)").bounding_box()
    parts = editor.page.locator(":is(.joyimage-number, .joyimage-chip, .joyimage-status):visible")
    for part in (parts.nth(i).bounding_box() for i in range(parts.count())):
        assert whole["x"] <= part["x"] and part["x"] + part["width"] <= whole["x"] + whole["width"] + 1
        assert part["y"] + part["height"] <= whole["y"] + whole["height"] + 1
    assert len({editor.page.locator(".joyimage-number").nth(i).bounding_box()["y"] for i in range(4)}) == 1
    script = "fields => fields.every(field => field.scrollWidth <= field.clientWidth)"
    assert editor.page.locator(".joyimage-number input").evaluate_all(script)


def test_without_a_pictures_size_there_are_none(editor):
    editor.add(NODE, 0, 0, object="red cup")
    editor.ready()
    editor.drag(editor.at(FRAME, 0.25, 0.25), editor.at(FRAME, 0.75, 0.5))
    assert not editor.page.locator(".joyimage-numbers").is_visible()
    assert editor.page.locator(STATUS).text_content().endswith("%")


def test_on_the_outside_of_a_subgraph(editor):
    insert(editor, "Move Object", object="red cube")
    editor.page.locator(".joyimage-box:visible img[src]").wait_for()
    editor.drag(editor.at(OUTSIDE, 0.25, 0.25), editor.at(OUTSIDE, 0.5, 0.5))
    assert tuple(map(int, shown(editor))) == pytest.approx((16, 16, 16, 16), abs=1)
    type_in(editor, "x", "30")
    type_in(editor, "w", "20")
    x, _, width, _ = pixels(editor, SCENE_SIDE, SCENE_SIDE)
    assert (x, width) == (30, 20)


def refuse(editor: Editor) -> None:
    """Queue the graph, and close what the page itself opens upon an error."""
    editor.page.get_by_test_id("queue-button").click()
    editor.page.wait_for_function("Object.keys(app.lastNodeErrors ?? {}).length > 0")
    editor.settle()
    editor.press("Escape")


def test_a_refused_box_says_why_until_it_is_changed(editor, move):
    editor.connect(move, 0, editor.add("PreviewImage", 900, 0), "images")
    editor.ready()
    assert not editor.page.locator(WRONG).count()
    refuse(editor)
    assert editor.page.locator(WRONG).text_content().startswith("there is no box")
    editor.drag(editor.at(FRAME, 0.2, 0.2), editor.at(FRAME, 0.6, 0.6))
    assert not editor.page.locator(WRONG).count()
    script = "([id, value]) => { app.graph.getNodeById(id).widgets.find(w => w.name === 'box').value = value }"
    editor.page.evaluate(script, [move, '{"x":0.9,"y":0,"w":0.5,"h":0.5}'])
    editor.settle()
    refuse(editor)
    assert "reaches outside the picture" in editor.page.locator(WRONG).text_content()
    type_in(editor, "w", "10")
    assert not editor.page.locator(WRONG).count()
    editor.run()
    assert not editor.page.locator(WRONG).count()


def test_a_refused_box_says_why_on_the_outside(editor):
    node = insert(editor, "Move Object", object="red cube")
    editor.connect(node, 0, editor.add("PreviewImage", 720, 0), "images")
    editor.page.locator(".joyimage-box:visible img[src]").wait_for()
    refuse(editor)
    assert editor.page.locator(WRONG).text_content().startswith("there is no box")
    editor.drag(editor.at(OUTSIDE, 0.2, 0.2), editor.at(OUTSIDE, 0.6, 0.6))
    assert not editor.page.locator(WRONG).count()
