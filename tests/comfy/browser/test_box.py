"""The red box of Move Object, drawn by hand."""

from __future__ import annotations

import json

import pytest
from conftest import PICTURE, SCENE
from editor import Editor

from tools.client import TINY

FRAME, STAGE, BODY = ".joyimage-box .joyimage-frame", ".joyimage-box", ".joyimage-box .joyimage-body"
NODE = "JoyImageMoveObject"
WIDTH, HEIGHT = 320, 240  # of the picture
SHOWN = 1000  # milliseconds in which the page has shown what a run gave, or has not


@pytest.fixture
def move(editor: Editor) -> int:
    """Load Image and Move Object, connected; the id of the latter."""
    picture = editor.add("LoadImage", 0, 0, image=PICTURE)
    node = editor.add(NODE, 400, 0, object="red cup")
    editor.connect(picture, 0, node, "image")
    editor.ready()
    editor.page.wait_for_function(f"document.querySelector('.joyimage-box img').naturalWidth === {WIDTH}")
    return node


def draw(editor: Editor, *corners: tuple[float, float]) -> None:
    editor.drag(*(editor.at(FRAME, *corner) for corner in corners))


def box(editor: Editor) -> dict[str, float]:
    return json.loads(editor.inputs(NODE)["box"])


def near(editor: Editor, scale: float = 1.0, **expected: float):
    """The expected fractions, to a pixel of the screen."""
    return pytest.approx(expected, abs=1.5 / editor.page.locator(FRAME).bounding_box()["width"])


def test_a_drag_draws_the_box_that_is_queued(editor, move):
    assert editor.inputs(NODE)["box"] == ""
    draw(editor, (0.25, 0.2), (0.5, 0.9), (0.75, 0.6))
    assert box(editor) == near(editor, x=0.25, y=0.2, w=0.5, h=0.4)
    bar = editor.page.locator(f"{STAGE} ~ .joyimage-bar")
    assert bar.locator(".joyimage-status").text_content() == f"Picture {WIDTH} × {HEIGHT} px"
    sides = [editor.page.get_by_role("textbox", name=name).input_value() for name in ("w: width", "h: height")]
    assert bar.locator(".joyimage-spoken").text_content().startswith(f"{sides[0]} × {sides[1]} px")


def test_the_outline_is_as_thick_as_the_node_draws_it(editor, move):
    draw(editor, (0.25, 0.25), (0.75, 0.75))
    outline = editor.page.locator(".joyimage-outline")
    assert float(outline.get_attribute("stroke-width")) == 2  # 0.4 % of 240 pixels, and at least 2
    assert outline.evaluate("element => getComputedStyle(element).stroke") == "rgb(255, 0, 0)"


def test_it_is_moved_resized_and_kept_inside(editor, move):
    draw(editor, (0.2, 0.2), (0.6, 0.6))
    editor.drag(editor.at(BODY), editor.at(FRAME, 0.5, 0.6))
    assert box(editor) == near(editor, x=0.3, y=0.4, w=0.4, h=0.4)
    editor.drag(editor.at('[data-handle="se"]'), editor.at(FRAME, 0.9, 0.9))
    assert box(editor) == near(editor, x=0.3, y=0.4, w=0.6, h=0.5)
    editor.drag(editor.at('[data-handle="w"]'), editor.at(FRAME, 0.5, 0.1))
    assert box(editor) == near(editor, x=0.5, y=0.4, w=0.4, h=0.5)
    editor.drag(editor.at(BODY), editor.at(FRAME, 1.4, 1.4))
    now = box(editor)
    assert (now["x"] + now["w"], now["y"] + now["h"]) == pytest.approx((1, 1), abs=2e-5)


def test_keys(editor, move):
    draw(editor, (0.2, 0.2), (0.6, 0.6))
    before = box(editor)
    editor.press("ArrowRight", "ArrowDown", "Shift+ArrowLeft")
    moved = {"x": before["x"] + 0.01, "y": before["y"] + 0.01, "w": before["w"] - 0.01, "h": before["h"]}
    assert box(editor) == pytest.approx(moved, abs=2e-5)
    editor.press("Delete")
    assert editor.inputs(NODE)["box"] == ""  # and the node is still there
    editor.press("ArrowUp")
    assert box(editor) == {"x": 0.35, "y": 0.35, "w": 0.3, "h": 0.3}


def test_escape_takes_a_drag_back(editor, move):
    draw(editor, (0.2, 0.2), (0.6, 0.6))
    before = box(editor)
    editor.drag(editor.at(BODY), editor.at(FRAME, 0.7, 0.7), release=False)
    assert box(editor) != before
    editor.press("Escape")
    editor.page.mouse.up()
    assert box(editor) == before


def test_undo_and_redo(editor, move):
    draw(editor, (0.2, 0.2), (0.6, 0.6))
    first = box(editor)
    editor.drag(editor.at(BODY), editor.at(FRAME, 0.6, 0.6))
    second = box(editor)
    editor.press("Control+z")
    assert box(editor) == first
    editor.press("Control+z")
    assert editor.inputs(NODE)["box"] == ""
    editor.press("Control+y", "Control+y")
    assert box(editor) == second
    draw(editor, (0.02, 0.02), (0.1, 0.1))  # the widget that undo has made anew still takes a drag
    assert box(editor) == near(editor, x=0.02, y=0.02, w=0.08, h=0.08)


@pytest.mark.parametrize("scale", [0.4, 2])
def test_in_a_zoomed_graph(editor, move, scale):
    editor.view(scale, 80 - 300 * scale, 80)
    draw(editor, (0.25, 0.25), (0.75, 0.5))
    assert box(editor) == near(editor, x=0.25, y=0.25, w=0.5, h=0.25)


def test_saved_and_loaded(editor, move):
    from comfy_cli.workflow_to_api import convert_ui_to_api

    draw(editor, (0.2, 0.2), (0.6, 0.6))
    text, workflow = editor.inputs(NODE)["box"], editor.save()
    editor.clear()
    editor.load(workflow)
    assert editor.inputs(NODE)["box"] == text
    assert editor.page.locator(".joyimage-outline").is_visible()
    converted = convert_ui_to_api(workflow, editor.client.get("/object_info"))
    assert converted[str(move)]["inputs"]["box"] == text


def test_copied(editor, move):
    draw(editor, (0.2, 0.2), (0.6, 0.6))
    text = editor.inputs(NODE)["box"]
    editor.page.evaluate(
        "id => { app.canvas.select(app.graph.getNodeById(id)); app.canvas.copyToClipboard(); "
        "app.canvas.pasteFromClipboard() }",
        move,
    )
    editor.settle()
    boxes = [node["inputs"]["box"] for node in editor.prompt().values() if node["class_type"] == NODE]
    assert boxes == [text, text]


def test_in_a_subgraph(editor, move):
    draw(editor, (0.2, 0.2), (0.6, 0.6))
    text = editor.inputs(NODE)["box"]
    editor.page.evaluate("id => { app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])) }", move)
    editor.settle()
    assert editor.inputs(NODE)["box"] == text
    editor.page.evaluate("app.canvas.openSubgraph(app.graph.nodes.find(n => n.subgraph).subgraph)")
    editor.settle()
    x, y = editor.page.evaluate("[...app.canvas.graph.nodes[0].pos]")
    editor.view(1, 300 - x, 100 - y)
    editor.page.wait_for_function(f"document.querySelector('.joyimage-box img')?.naturalWidth === {WIDTH}")
    editor.drag(editor.at(BODY), editor.at(FRAME, 0.6, 0.6))
    assert box(editor) == near(editor, x=0.4, y=0.4, w=0.4, h=0.4)


def test_the_renderers_switched_and_the_node_collapsed(editor, move):
    draw(editor, (0.2, 0.2), (0.6, 0.6))
    text = editor.inputs(NODE)["box"]
    switch = "async on => { await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on) }"
    editor.page.evaluate(switch, not editor.nodes_2)
    editor.settle()
    assert editor.inputs(NODE)["box"] == text
    editor.page.evaluate(switch, editor.nodes_2)
    for _ in range(2):
        editor.page.evaluate("id => app.graph.getNodeById(id).collapse(true)", move)
        editor.settle()
        assert editor.inputs(NODE)["box"] == text
    editor.drag(editor.at(BODY), editor.at(FRAME, 0.6, 0.6))
    assert box(editor) == near(editor, x=0.4, y=0.4, w=0.4, h=0.4)


def test_it_cannot_be_linked_or_promoted_to_where_nobody_could_draw(editor, move):
    names = editor.page.evaluate("id => app.graph.getNodeById(id).inputs.map(input => input.name)", move)
    assert "image" in names and "box" not in names


def test_wheel_and_middle_button_are_the_graphs(editor, move):
    before = editor.page.evaluate("app.canvas.ds.scale")
    editor.page.mouse.move(*editor.at(FRAME))
    editor.page.mouse.wheel(0, -240)
    editor.settle()
    assert editor.page.evaluate("app.canvas.ds.scale") > before
    offset = editor.page.evaluate("[...app.canvas.ds.offset]")
    x, y = editor.at(FRAME)
    editor.page.mouse.down(button="middle")
    editor.page.mouse.move(x + 60, y + 40, steps=4)
    editor.page.mouse.up(button="middle")
    editor.settle()
    assert editor.page.evaluate("[...app.canvas.ds.offset]") != offset
    assert editor.inputs(NODE)["box"] == ""


def test_a_connected_mask_replaces_it(editor, move):
    picture = editor.add("LoadImage", 0, 500, image=PICTURE)
    hint = editor.page.locator(f"{STAGE} ~ .joyimage-bar .joyimage-status")
    editor.settle()
    assert "Drag a box" in hint.text_content()
    editor.connect(picture, 1, move, "mask")
    editor.settle()
    assert "in place of" in hint.text_content()


def test_without_a_picture_the_canvas_has_the_sources_shape(editor):
    source = editor.add("EmptyImage", 0, 0, width=600, height=300)
    node = editor.add(NODE, 400, 0, object="red cup")
    editor.connect(source, 0, node, "image")
    editor.ready()
    frame = editor.page.locator(FRAME).bounding_box()
    assert frame["width"] / frame["height"] == pytest.approx(2, abs=0.02)
    draw(editor, (0.5, 0.5), (1, 1))
    assert box(editor) == near(editor, x=0.5, y=0.5, w=0.5, h=0.5)


def test_a_picture_of_the_graph_before_is_not_taken(editor):
    """Nodes of another graph have the same ids, and the page can be late with what it showed on them."""
    decoded, node = editor.add("VAEDecode"), editor.add(NODE, 400, 0, object="red cup")
    editor.connect(decoded, 0, node, "image")
    following = editor.save()
    editor.clear()
    preview = editor.add("PreviewImage", 400, 0)
    assert preview == decoded
    editor.connect(editor.add("LoadImage", 0, 0, image=PICTURE), 0, preview, "images")
    editor.run()
    editor.page.wait_for_timeout(SHOWN)
    editor.load(following)
    editor.page.wait_for_timeout(SHOWN)
    assert editor.page.locator(f"{STAGE} img[src]").count() == 0


def test_a_located_object_is_dragged_to_its_place(editor):
    """The outline of what Locate found on the same picture: dragged, it leaves a box of its size."""
    ghost = f"{STAGE} .joyimage-ghost"
    picture = editor.add("LoadImage", 0, 0, image=SCENE)
    node = editor.add(NODE, 400, 0, object="red cube")
    locate = editor.add("JoyImageLocate", 400, 600, object="red cube")
    encoder = editor.add("JoyImageLoadEncoder", 0, 600, encoder=TINY)
    for source, target, name in ((picture, node, "image"), (picture, locate, "image"), (encoder, locate, "encoder")):
        editor.connect(source, 0, target, name)
    editor.ready()
    size = f"document.querySelector('{ghost}').width.baseVal.value"
    assert editor.page.evaluate(size) == 0
    editor.run()
    editor.page.wait_for_function(f"{size} > 5")
    editor.page.mouse.click(*editor.at(ghost))
    assert editor.inputs_of(node)["box"] == ""  # a click alone draws nothing
    frame, outline = (editor.page.locator(selector).bounding_box() for selector in (FRAME, ghost))
    editor.drag(editor.at(ghost), editor.at(FRAME, 0.7, 0.7))
    placed = json.loads(editor.inputs_of(node)["box"])
    assert placed["w"] == pytest.approx(outline["width"] / frame["width"], abs=0.01)
    assert placed["h"] == pytest.approx(outline["height"] / frame["height"], abs=0.01)
    assert placed["x"] + placed["w"] / 2 == pytest.approx(0.7, abs=0.01)
    assert placed["y"] + placed["h"] / 2 == pytest.approx(0.7, abs=0.01)
