"""Before and after: the line that follows the mouse, pictures in turn, and what is taken away."""

from __future__ import annotations

import io

import pytest
from conftest import PICTURE
from editor import Editor
from PIL import Image, ImageChops

NODE, STAGE = "JoyImageCompare", ".joyimage-compare"


@pytest.fixture
def compare(editor: Editor) -> int:
    """A picture and its negative, run; the id of Compare."""
    picture, invert = editor.add("LoadImage", 0, 0, image=PICTURE), editor.add("ImageInvert", 0, 500)
    node = editor.add(NODE, 400, 0)
    for source, target, name in ((picture, invert, "image"), (picture, node, "before"), (invert, node, "after")):
        editor.connect(source, 0, target, name)
    editor.ready()
    editor.run()
    editor.page.wait_for_function("[...document.querySelectorAll('.joyimage-compare img')].every(i => i.naturalWidth)")
    editor.page.mouse.move(5, 990)
    return node


def share(editor: Editor) -> int:
    return int(editor.page.locator(STAGE).get_attribute("aria-valuenow"))


def button(editor: Editor, name: str):
    return editor.page.get_by_role("button", name=name, exact=True)


def is_negative(editor: Editor, picture: Image.Image) -> bool:
    expected = ImageChops.invert(Image.open(editor.client.base / "input" / PICTURE).convert("RGB"))
    difference = ImageChops.difference(picture.convert("RGB"), expected)
    return max(high for _, high in difference.getextrema()) <= 1


def test_the_line_follows_the_mouse(editor, compare):
    assert share(editor) == 50
    editor.page.mouse.move(*editor.at(STAGE, 0.25, 0.6), steps=3)
    assert share(editor) == 25
    editor.page.mouse.move(*editor.at(STAGE, 0.8, 0.4), steps=3)
    assert share(editor) == 80
    editor.page.mouse.move(5, 990)
    assert share(editor) >= 80  # it stays where the mouse left
    editor.page.locator(STAGE).focus()
    before = share(editor)
    editor.press("ArrowLeft")
    assert share(editor) == before - 5


def test_pictures_in_turn(editor, compare):
    script = "id => app.graph.getNodeById(id).properties['Compare by'] ?? null"
    assert editor.page.evaluate(script, compare) is None
    button(editor, "Click").click()
    editor.settle()
    assert (share(editor), editor.page.evaluate(script, compare)) == (0, "click")
    before, after = (editor.page.locator(f".joyimage-name.joyimage-{name}") for name in ("before", "after"))
    assert after.is_visible() and not before.is_visible()
    editor.page.mouse.move(*editor.at(STAGE, 0.3), steps=2)
    assert share(editor) == 0
    editor.page.mouse.down()
    assert share(editor) == 100 and before.is_visible() and not after.is_visible()
    editor.page.mouse.up()
    assert share(editor) == 0
    editor.press("Space")
    assert share(editor) == 100
    editor.press("ArrowLeft")
    assert share(editor) == 0
    assert set(editor.inputs(NODE)) == {"before", "after"}  # the way is not queued
    editor.load(editor.save())
    assert button(editor, "Click").get_attribute("aria-pressed") == "true"
    button(editor, "Slide").click()
    editor.settle()
    assert (share(editor), editor.page.evaluate(script, compare)) == (50, None)


def test_undo_takes_the_way_back(editor, compare):
    editor.ready()
    button(editor, "Click").click()
    editor.settle()
    editor.page.mouse.move(5, 990)
    editor.press("Control+z")
    editor.settle()
    assert button(editor, "Slide").get_attribute("aria-pressed") == "true"


def test_the_picture_after_is_saved_under_its_name(editor, compare):
    source = editor.page.get_by_alt_text("After", exact=True).get_attribute("src")
    with editor.page.expect_download() as download:
        button(editor, "Save the picture after").click()
    assert f"filename={download.value.suggested_filename}&" in source
    assert is_negative(editor, Image.open(download.value.path()))


def test_the_picture_after_is_copied(editor, compare):
    editor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button(editor, "Copy the picture after").click()
    editor.page.get_by_text("Copied", exact=True).wait_for()
    script = """async () => {
        const [item] = await navigator.clipboard.read();
        return [...new Uint8Array(await (await item.getType("image/png")).arrayBuffer())];
    }"""
    assert is_negative(editor, Image.open(io.BytesIO(bytes(editor.page.evaluate(script)))))


def test_nothing_is_taken_away_before_a_run_nor_copied_without_a_clipboard(editor):
    editor.add(NODE, 0, 0)
    editor.ready()
    assert not editor.page.locator(".joyimage-takeaway").is_visible()
    editor.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    editor.add(NODE, 500, 0)
    editor.ready()
    hidden = editor.page.get_by_role("button", name="Copy the picture after", include_hidden=True)
    assert hidden.nth(1).evaluate("button => button.hidden")
    editor.page.evaluate("delete navigator.clipboard")
