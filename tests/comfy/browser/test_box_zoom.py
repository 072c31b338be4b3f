"""The red box on pictures that are long and narrow, and under zoom."""

from __future__ import annotations

import json

import pytest
from conftest import PICTURE
from editor import Editor
from PIL import Image

NODE = "JoyImageMoveObject"
STAGE, FRAME, BODY = ".joyimage-box", ".joyimage-box .joyimage-frame", ".joyimage-box .joyimage-body"
PLACE = "[...app.canvas.ds.offset, app.canvas.ds.scale]"


def put(editor: Editor, file: str, size: tuple[int, int]) -> int:
    """Move Object with a picture of a size."""
    if file != PICTURE:
        Image.linear_gradient("L").resize(size).save(editor.client.base / "input" / file)
    picture = editor.add("LoadImage", 0, 0, image=file)
    node = editor.add(NODE, 400, 0, object="red cup")
    editor.connect(picture, 0, node, "image")
    editor.ready()
    editor.page.wait_for_function(f"document.querySelector('.joyimage-box img').naturalWidth === {size[0]}")
    editor.settle()
    return node


def box(editor: Editor) -> dict[str, float]:
    return json.loads(editor.inputs(NODE)["box"])


def bounds(editor: Editor, selector: str) -> dict[str, float]:
    return editor.page.locator(selector).bounding_box()


def wheel(editor: Editor, at: tuple[float, float], turns: int) -> None:
    editor.page.mouse.move(*at)
    editor.page.keyboard.down("Control")
    for _ in range(abs(turns)):
        editor.page.mouse.wheel(0, -100 if turns > 0 else 100)
    editor.page.keyboard.up("Control")
    editor.settle()


def fractions(editor: Editor, x: float, y: float) -> tuple[float, float]:
    """A place of the stage, in fractions of the picture."""
    (left, top), frame = editor.at(STAGE, x, y), bounds(editor, FRAME)
    return (left - frame["x"]) / frame["width"], (top - frame["y"]) / frame["height"]


@pytest.mark.parametrize("size", [(4000, 300), (200, 3000)], ids=["wide", "tall"])
def test_a_box_is_drawn_on_a_long_narrow_picture(editor, size):
    put(editor, f"{size[0]}.png", size)
    graph, stage = editor.page.evaluate(PLACE), bounds(editor, STAGE)
    assert stage["height"] < 170 if size[0] > size[1] else stage["height"] > 400
    assert "Zoom in" in editor.page.locator(".joyimage-remarks .joyimage-status").text_content()
    point = fractions(editor, 0.5, 0.5)
    wheel(editor, editor.at(STAGE), 15)
    assert min(bounds(editor, FRAME)["width"], bounds(editor, FRAME)["height"]) > 120
    assert fractions(editor, 0.5, 0.5) == pytest.approx(point, abs=0.01)  # what is under the mouse stays there
    assert editor.page.evaluate(PLACE) == graph
    first, last = fractions(editor, 0.3, 0.3), fractions(editor, 0.7, 0.7)
    editor.drag(editor.at(STAGE, 0.3, 0.3), editor.at(STAGE, 0.7, 0.7))
    drawn = box(editor)
    assert (drawn["x"], drawn["y"]) == pytest.approx((max(first[0], 0), max(first[1], 0)), abs=0.01)
    assert (drawn["x"] + drawn["w"], drawn["y"] + drawn["h"]) == pytest.approx(
        (min(last[0], 1), min(last[1], 1)), abs=0.01
    )
    editor.page.get_by_role("button", name="Whole picture").click()
    editor.settle()
    assert box(editor) == drawn
    assert bounds(editor, FRAME)["width"] <= stage["width"] and bounds(editor, FRAME)["height"] <= stage["height"]


def test_a_node_keeps_its_height_with_a_usual_picture_and_finds_it_again(editor):
    node = put(editor, PICTURE, (320, 240))
    height = "id => app.graph.getNodeById(id).size[1]"
    usual = editor.page.evaluate(height, node)
    Image.linear_gradient("L").resize((200, 3000)).save(editor.client.base / "input" / "200.png")
    choose = "file => { app.graph.nodes.find(n => n.type === 'LoadImage').widgets[0].value = file }"
    for file, width in (("200.png", 200), (PICTURE, 320)):
        editor.page.evaluate(choose, file)
        editor.page.wait_for_function(f"document.querySelector('.joyimage-box img').naturalWidth === {width}")
        editor.settle()
        now = editor.page.evaluate(height, node)
        assert now > usual + 150 if width == 200 else now == pytest.approx(usual, abs=20)


def test_panned_with_the_middle_button_and_the_space_key(editor):
    put(editor, PICTURE, (320, 240))
    graph = editor.page.evaluate(PLACE)
    wheel(editor, editor.at(STAGE), 6)
    before, (x, y) = bounds(editor, FRAME), editor.at(STAGE)
    editor.page.mouse.down(button="middle")
    editor.page.mouse.move(x - 30, y - 20, steps=3)
    editor.page.mouse.up(button="middle")
    editor.settle()
    moved = bounds(editor, FRAME)
    assert (moved["x"] - before["x"], moved["y"] - before["y"]) == pytest.approx((-30, -20), abs=1)
    editor.page.mouse.move(x, y)
    editor.page.keyboard.down("Space")
    editor.drag((x, y), (x + 15, y + 10))
    editor.page.keyboard.up("Space")
    panned = bounds(editor, FRAME)
    assert (panned["x"] - moved["x"], panned["y"] - moved["y"]) == pytest.approx((15, 10), abs=1)
    assert editor.page.evaluate(PLACE) == graph
    assert editor.inputs(NODE)["box"] == ""
    editor.drag(editor.at(STAGE, 0.4, 0.4), editor.at(STAGE, 0.6, 0.6))  # without the key it draws again
    assert box(editor)["w"] > 0


def test_zoomed_with_buttons_and_keys(editor):
    put(editor, PICTURE, (320, 240))
    width = bounds(editor, FRAME)["width"]
    larger, smaller = (editor.page.get_by_role("button", name=f"Zoom {way}") for way in ("in", "out"))
    assert smaller.is_disabled()
    larger.click()
    larger.click()
    editor.settle()
    assert bounds(editor, FRAME)["width"] == pytest.approx(2.25 * width, rel=0.01)
    smaller.click()
    assert bounds(editor, FRAME)["width"] == pytest.approx(1.5 * width, rel=0.01)
    editor.page.locator(STAGE).focus()
    editor.press("+")
    assert bounds(editor, FRAME)["width"] == pytest.approx(2.25 * width, rel=0.01)
    editor.press("0")
    assert bounds(editor, FRAME)["width"] == pytest.approx(width, rel=0.01)


def test_a_box_is_moved_and_undone_under_zoom(editor):
    put(editor, PICTURE, (320, 240))
    editor.drag(editor.at(FRAME, 0.4, 0.4), editor.at(FRAME, 0.6, 0.6))
    wheel(editor, editor.at(FRAME), 4)
    zoomed, before = bounds(editor, FRAME), box(editor)
    (x, y), step = editor.at(BODY), zoomed["width"] * 0.05
    editor.drag((x, y), (x + step, y))
    assert box(editor)["x"] == pytest.approx(before["x"] + 0.05, abs=0.01)
    editor.press("Control+z")
    editor.settle()
    assert box(editor) == before
    assert bounds(editor, FRAME)["width"] == pytest.approx(zoomed["width"], rel=0.01)  # undo leaves the view


def test_the_keys_bring_the_box_into_view(editor):
    put(editor, PICTURE, (320, 240))
    editor.drag(editor.at(FRAME, 0.05, 0.05), editor.at(FRAME, 0.15, 0.15))
    wheel(editor, editor.at(FRAME, 0.95, 0.95), 8)
    stage = bounds(editor, STAGE)
    assert bounds(editor, BODY)["x"] < stage["x"]
    editor.page.locator(STAGE).focus()
    editor.press("ArrowRight")
    body = bounds(editor, BODY)
    assert stage["x"] < body["x"] + body["width"] / 2 < stage["x"] + stage["width"]


def test_the_hint_is_below_the_picture(editor):
    put(editor, PICTURE, (320, 240))
    hint, stage = editor.page.locator(".joyimage-remarks .joyimage-status"), bounds(editor, STAGE)
    assert "Drag a box" in hint.text_content()
    assert hint.bounding_box()["y"] >= stage["y"] + stage["height"]
    assert hint.evaluate("element => element.scrollHeight <= element.clientHeight + 1")
