"""The boxes of Draw Boxes, drawn by hand."""

from __future__ import annotations

import json

import pytest
from conftest import PICTURE
from editor import Editor

NODE = "JoyImageDrawBoxes"
STAGE, FRAME, GRIP = ".joyimage-box", ".joyimage-box .joyimage-frame", ".joyimage-box .joyimage-grip"
NUMBERS = ".joyimage-box .joyimage-box-number"
WIDTH = 320  # of the picture
FIRST = {"x": 0.1, "y": 0.2, "w": 0.3, "h": 0.4}
SECOND = {"x": 0.6, "y": 0.3, "w": 0.2, "h": 0.5}


@pytest.fixture
def draw(editor: Editor) -> int:
    """Load Image and Draw Boxes, connected; the id of the latter."""
    picture = editor.add("LoadImage", 0, 0, image=PICTURE)
    node = editor.add(NODE, 400, 0)
    editor.connect(picture, 0, node, "image")
    editor.ready()
    editor.page.wait_for_function(f"document.querySelector('.joyimage-box img').naturalWidth === {WIDTH}")
    editor.settle()
    return node


def place(editor: Editor, box: dict[str, float], x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
    """A place of the page, in fractions of a box."""
    return editor.at(FRAME, box["x"] + x * box["w"], box["y"] + y * box["h"])


def drag_out(editor: Editor, *drawn: dict[str, float]) -> None:
    for box in drawn:
        editor.drag(place(editor, box, 0, 0), place(editor, box, 1, 1))


def boxes(editor: Editor) -> list[dict[str, float]]:
    return json.loads(editor.inputs(NODE)["boxes"] or "[]")


def near(editor: Editor, *expected: dict[str, float]) -> list:
    """The expected fractions, to a pixel of the screen."""
    pixel = 1.5 / editor.page.locator(FRAME).bounding_box()["width"]
    return [pytest.approx(box, abs=pixel) for box in expected]


def status(editor: Editor) -> str:
    return editor.page.locator(f"{STAGE} ~ .joyimage-bar .joyimage-status").text_content()


def chosen(editor: Editor) -> str | None:
    """The number of the selected box, as the node says it and as its handles show it."""
    words = status(editor).split()
    number = words[1] if words[0] == "Box" else None
    assert editor.page.locator(GRIP).first.is_visible() is (number is not None)
    return number


def test_two_boxes_are_drawn_numbered_and_posted(editor, draw):
    assert editor.inputs(NODE)["boxes"] == ""
    assert "Drag boxes" in status(editor)
    drag_out(editor, FIRST, SECOND)
    assert boxes(editor) == near(editor, FIRST, SECOND)
    assert editor.page.locator(NUMBERS).all_text_contents() == ["1", "2"]
    assert chosen(editor) == "2"
    editor.page.get_by_role("button", name="Clear").click()
    editor.settle()
    assert editor.inputs(NODE)["boxes"] == ""
    assert editor.page.locator(NUMBERS).count() == 0


def test_a_click_selects_a_drag_moves_and_handles_resize(editor, draw):
    drag_out(editor, FIRST, SECOND)
    before = boxes(editor)
    editor.page.mouse.click(*place(editor, FIRST))
    editor.settle()
    assert chosen(editor) == "1"
    assert boxes(editor) == before
    editor.drag(editor.at('[data-handle="se"]'), editor.at(FRAME, 0.5, 0.8))
    assert boxes(editor) == near(editor, {"x": 0.1, "y": 0.2, "w": 0.4, "h": 0.6}, SECOND)
    editor.drag(place(editor, SECOND), editor.at(FRAME, 0.75, 0.45))  # which takes one that is not selected
    moved = {**SECOND, "x": 0.65, "y": 0.2}
    assert chosen(editor) == "2"
    assert boxes(editor) == near(editor, {"x": 0.1, "y": 0.2, "w": 0.4, "h": 0.6}, moved)
    editor.drag(place(editor, moved), editor.at(FRAME, 1.5, 1.5))
    edge = boxes(editor)[1]
    assert (edge["x"] + edge["w"], edge["y"] + edge["h"]) == pytest.approx((1, 1), abs=2e-5)
    editor.page.mouse.click(*editor.at(FRAME, 0.05, 0.05))
    editor.settle()
    assert chosen(editor) is None
    assert len(boxes(editor)) == 2


def test_a_small_box_in_a_large_one_can_be_drawn_and_taken(editor, draw):
    large, small = {"x": 0.1, "y": 0.1, "w": 0.8, "h": 0.8}, {"x": 0.3, "y": 0.3, "w": 0.2, "h": 0.2}
    drag_out(editor, large)
    editor.page.keyboard.down("Shift")
    drag_out(editor, small)
    editor.page.keyboard.up("Shift")
    assert boxes(editor) == near(editor, large, small)
    editor.page.mouse.click(*place(editor, large, 0.9, 0.9))
    editor.settle()
    assert chosen(editor) == "1"
    editor.page.mouse.click(*place(editor, small))
    editor.settle()
    assert chosen(editor) == "2"


def test_keys(editor, draw):
    drag_out(editor, FIRST, SECOND)
    before = boxes(editor)
    editor.press("Shift+Tab")
    assert chosen(editor) == "1"
    editor.press("ArrowRight", "ArrowDown", "Shift+ArrowLeft")
    one = {**before[0], "x": before[0]["x"] + 0.01, "y": before[0]["y"] + 0.01, "w": before[0]["w"] - 0.01}
    assert boxes(editor) == [pytest.approx(one, abs=2e-5), before[1]]
    editor.press("Tab")
    assert chosen(editor) == "2"
    editor.press("Enter")
    assert len(boxes(editor)) == 3 and chosen(editor) == "3"
    editor.press("Shift+Tab", "Shift+Tab", "Delete")
    assert boxes(editor)[0] == before[1]
    assert chosen(editor) == "1"
    editor.press("Delete", "Delete", "Delete")  # one more than there are, and the node is still there
    assert editor.inputs(NODE)["boxes"] == ""
    editor.press("ArrowUp")
    assert boxes(editor) == [{"x": 0.35, "y": 0.35, "w": 0.3, "h": 0.3}]
    focused = f"document.activeElement === document.querySelector('{STAGE}')"
    assert editor.page.evaluate(focused)
    editor.press("Tab")  # beyond the last it goes on to what follows the picture
    assert not editor.page.evaluate(focused)


def test_escape_takes_a_drag_back(editor, draw):
    drag_out(editor, FIRST)
    before = boxes(editor)
    editor.drag(editor.at(FRAME, 0.6, 0.6), editor.at(FRAME, 0.9, 0.9), release=False)
    assert len(boxes(editor)) == 2
    editor.press("Escape")
    editor.page.mouse.up()
    assert boxes(editor) == before
    editor.drag(editor.at(FRAME, 0.6, 0.9), editor.at(FRAME, 0.9, 0.9))  # a line is no box
    assert boxes(editor) == before


def test_undo_and_redo(editor, draw):
    drag_out(editor, FIRST, SECOND)
    both = boxes(editor)
    editor.press("Delete")
    assert boxes(editor) == both[:1]
    editor.press("Control+z")
    assert boxes(editor) == both
    editor.press("Control+z")
    assert boxes(editor) == both[:1]
    editor.press("Control+z")
    assert editor.inputs(NODE)["boxes"] == ""
    editor.press("Control+y", "Control+y")
    assert boxes(editor) == both
    editor.drag(place(editor, FIRST), editor.at(FRAME, 0.25, 0.6))  # the widget that undo has made anew takes a drag
    assert boxes(editor) == near(editor, {**FIRST, "y": 0.4}, SECOND)


def test_the_selected_box_is_set_in_pixels(editor, draw):
    drag_out(editor, FIRST, SECOND)
    editor.page.mouse.click(*place(editor, FIRST))
    editor.settle()
    left = editor.page.get_by_role("textbox", name="x: left")
    assert float(left.input_value()) == pytest.approx(0.1 * WIDTH, abs=2)
    left.fill("80")
    left.press("Enter")
    editor.settle()
    assert boxes(editor) == near(editor, {**FIRST, "x": 0.25}, SECOND)


def test_saved_and_opened_again(editor, draw):
    from comfy_cli.workflow_to_api import convert_ui_to_api

    drag_out(editor, FIRST, SECOND)
    text, workflow = editor.inputs(NODE)["boxes"], editor.save()
    editor.clear()
    editor.load(workflow)
    assert editor.inputs(NODE)["boxes"] == text
    assert editor.page.locator(NUMBERS).all_text_contents() == ["1", "2"]
    converted = convert_ui_to_api(workflow, editor.client.get("/object_info"))
    assert converted[str(draw)]["inputs"]["boxes"] == text


def test_the_node_says_why_it_was_refused(editor, draw):
    picture = editor.add("PreviewImage", 900, 0)
    editor.connect(draw, 3, picture, "images")
    editor.page.get_by_test_id("queue-button").click()
    editor.page.wait_for_function("document.querySelector('.joyimage-wrong')?.textContent.includes('no boxes')")
    editor.press("Escape")
    editor.page.evaluate("document.querySelector('[data-testid=error-overlay] button')?.click()")
    drag_out(editor, FIRST)
    assert editor.page.locator(".joyimage-wrong").count() == 0
    editor.run()
