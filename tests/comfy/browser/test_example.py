"""The pack's own pictures in the page: seen before a run, and one's own in their place."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tools.tiny.examples import load_scenes

SCENE_IMAGE, LOADED = ".joyimage-scene img[src]:visible", ".joyimage-stage:not(.joyimage-box) > img[src]:visible"
BOXED = ".joyimage-box img[src]:visible"
SIZE = "selector => { const {naturalWidth: w, naturalHeight: h} = document.querySelector(selector); return [w, h] }"
DROP = """([bytes, name]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(bytes)], name, {type: "image/png"}));
  const target = document.querySelector(".joyimage-stage:not(.joyimage-box)").parentElement;
  target.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


def png(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "green").save(file, "PNG")
    return file.getvalue()


def wait_for_size(editor, selector: str, size: tuple[int, int]) -> None:
    editor.page.wait_for_function(f"size => String(({SIZE})({selector!r})) === String(size)", arg=list(size))


def test_a_scene_is_seen_with_its_words(editor):
    entries, _ = load_scenes()
    node = editor.add("JoyImageExampleScene", scene=entries[3]["name"])
    moved = editor.add("JoyImageMoveObject", 450, 0)
    editor.connect(node, 0, moved, "image")
    for selector in (SCENE_IMAGE, BOXED):
        editor.page.locator(selector).wait_for()
        wait_for_size(editor, selector.removesuffix(":visible"), (64, 64))
        assert editor.page.locator(selector).get_attribute("src").endswith(entries[3]["file"])
    words = editor.page.locator(".joyimage-words").inner_text()
    assert all(entries[3][name] in words for name in ("object", "car", "question", "description"))


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_ones_own_picture_takes_the_photographs_place(editor, way):
    node = editor.add("JoyImageLoadImage")
    editor.connect(node, 0, editor.add("PreviewImage", 450, 0), "images")
    selector = LOADED.removesuffix(":visible")
    editor.page.locator(LOADED).wait_for()
    wait_for_size(editor, selector, (600, 400))
    name, size = f"{way}.png", (120, 90)
    if way == "chosen":
        with editor.page.expect_file_chooser() as chooser:
            editor.page.get_by_role("button", name="Choose picture").locator("visible=true").click()
        chooser.value.set_files([{"name": name, "mimeType": "image/png", "buffer": png(size)}])
    else:
        editor.page.evaluate(DROP, [list(png(size)), name])
    wait_for_size(editor, selector, size)
    assert editor.inputs("JoyImageLoadImage")["image"].startswith(way)
    editor.run()
