"""The camera, the orbit, the dial, and before and after: views that show and set what their nodes hold."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from conftest import PICTURE, SCENE
from editor import LOAD, PERSISTED, Editor
from PIL import Image

from joyimage import spatial
from joyimage.demo import EXAMPLES
from tools.tiny import judge
from tools.tiny.scenes import COLOUR_NAMES

CAMERA, ORBIT, ROTATE = "JoyImageCamera", "JoyImageOrbit", "JoyImageRotateObject"
TINY = "tiny (bundled)"
STAGE, SENTENCE = ".joyimage-space", ".joyimage-sentence"


def put(editor: Editor, kind: str, **values) -> int:
    node = editor.add(kind, 0, 0, **values)
    editor.ready()
    return node


def camera(editor: Editor) -> tuple[float, float, str]:
    inputs = editor.inputs(CAMERA)
    assert set(inputs) == {"yaw", "pitch", "zoom"}  # the view is not posted
    assert editor.page.locator(SENTENCE).text_content() == spatial.camera(**inputs)
    return inputs["yaw"], inputs["pitch"], inputs["zoom"]


def click(editor: Editor, text: str) -> None:
    editor.page.locator(".joyimage-chip", has_text=text).first.click()
    editor.settle()


def test_the_sentence_is_the_librarys(editor):
    cases = [
        (y, p, z)
        for y in (-360, -180.0, -90.5, 0, 45, 59.1234, 180, 270, 360)
        for p in (-90, 0, 12.5)
        for z in spatial.ZOOMS
    ]
    script = "async cases => { const { sentence } = await import('/extensions/ComfyUI-JoyImage/space.js'); "
    written = editor.page.evaluate(script + "return cases.map(each => sentence(...each)) }", cases)
    assert written == [spatial.camera(*case) for case in cases]


@pytest.mark.parametrize("orbit", [(0, 360, 8), (-45, 45, 4), (90, -90, 3), (180, -180, 5), (30, 30, 1)])
def test_the_orbits_views_are_the_librarys(editor, orbit):
    script = """async ([start, end, views]) => {
        const [{ yaws }, { sentence }] = await Promise.all(["orbit", "space"].map(
            name => import(`/extensions/ComfyUI-JoyImage/${name}.js`)));
        return yaws({ start, end, views }).map(yaw => sentence(yaw, 0, "unchanged"));
    }"""
    assert editor.page.evaluate(script, orbit) == spatial.orbit(*orbit)


def test_the_camera_is_dragged_in_steps(editor):
    put(editor, CAMERA, yaw=0, pitch=0)
    x, y = editor.at(STAGE, 0.2, 0.85)
    editor.drag((x, y), (x + 60, y), (x + 60, y - 40))
    yaw, pitch, _ = camera(editor)
    assert yaw > 0 and pitch > 0  # to the right and up
    assert yaw % 15 == pitch % 15 == 0
    editor.page.keyboard.down("Shift")
    editor.drag((x, y), (x + 13, y))
    editor.page.keyboard.up("Shift")
    free, _, _ = camera(editor)
    assert free == round(free) and yaw < free < yaw + 15


def test_the_cameras_handles(editor):
    put(editor, CAMERA, yaw=0, pitch=0)
    tick = ".joyimage-tick >> nth=2"  # at 90 degrees
    editor.drag(editor.at('[data-part="yaw"]'), editor.at(tick))
    assert camera(editor) == (90, 0, "unchanged")
    x, y = editor.at('[data-part="pitch"]')
    editor.drag((x, y), (x, y - 40))
    yaw, pitch, _ = camera(editor)
    assert yaw == 90 and pitch > 0
    editor.drag(editor.at('[data-part="zoom"]'), editor.at(STAGE, 0.95, 0.05))
    assert camera(editor)[2] == "out"
    editor.press("Control+z")
    assert camera(editor) == (90, pitch, "unchanged")


def test_presets_keys_and_reset(editor):
    put(editor, CAMERA)
    for text in ("Rear left", "High", "Out"):
        click(editor, text)
    assert camera(editor) == (-135, 45, "out")
    editor.page.locator(STAGE).focus()
    editor.press("ArrowLeft", "Shift+ArrowUp", "+")
    assert camera(editor) == (-150, 46, "unchanged")
    editor.page.mouse.dblclick(*editor.at(STAGE, 0.1, 0.9))
    editor.settle()
    assert camera(editor) == (0, 0, "unchanged")


def test_numbers_move_the_camera(editor):
    node = put(editor, CAMERA, yaw=0, pitch=0)
    before = editor.page.locator(".joyimage-camera").get_attribute("d")
    editor.page.evaluate("id => { app.graph.getNodeById(id).widgets.find(w => w.name === 'yaw').value = 90 }", node)
    editor.settle()
    assert camera(editor) == (90, 0, "unchanged")
    assert editor.page.locator(".joyimage-camera").get_attribute("d") != before
    assert editor.page.locator(".joyimage-chip[aria-pressed=true]").all_text_contents()[:2] == ["Right", "Eye level"]


def test_the_cameras_own_view(editor):
    put(editor, CAMERA, yaw=0, pitch=0)
    click(editor, "Camera's view")
    assert editor.page.locator(".joyimage-seen").is_visible()
    x, y = editor.at(STAGE)
    editor.drag((x, y), (x - 60, y))
    assert camera(editor)[0] > 0  # the scene turned to the left is seen from the right


def test_the_camera_is_saved_copied_and_put_in_a_subgraph(editor):
    node = put(editor, CAMERA, yaw=30, pitch=-15, zoom="in")
    workflow = editor.save()
    assert workflow["nodes"][0]["widgets_values"] == [30, -15, "in"]
    editor.clear()
    editor.load(workflow)
    assert camera(editor) == (30, -15, "in")
    editor.page.evaluate("id => { app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])) }", node)
    editor.settle()
    assert editor.inputs(CAMERA) == {"yaw": 30, "pitch": -15, "zoom": "in"}


@pytest.mark.parametrize("scale", [0.4, 2])
def test_the_camera_in_a_zoomed_graph(editor, scale):
    put(editor, CAMERA, yaw=0, pitch=0)
    editor.view(scale, 80, 20)
    editor.drag(editor.at('[data-part="yaw"]'), editor.at(".joyimage-tick >> nth=6"))
    assert camera(editor) == (-90, 0, "unchanged")


PROMOTE = """([id, name]) => {
    app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)]));
    const host = app.graph.nodes.find(node => node.subgraph);
    const [inner] = host.subgraph.nodes;
    const slot = inner.inputs.find(input => input.name === name);
    host.subgraph.addInput(name, String(slot.type)).connect(slot, inner);
    host.widgets.find(widget => widget.name === name).value = 75;
}"""


def test_a_number_promoted_to_the_subgraphs_node_is_what_the_camera_shows_and_sets(editor):
    node = put(editor, CAMERA, yaw=30, pitch=15)
    editor.page.evaluate(PROMOTE, [node, "yaw"])
    editor.page.evaluate("app.canvas.openSubgraph(app.graph.nodes.find(n => n.subgraph).subgraph)")
    editor.settle()
    x, y = editor.page.evaluate("[...app.canvas.graph.nodes[0].pos]")
    editor.view(1, 300 - x, 100 - y)
    assert camera(editor) == (75, 15, "unchanged")
    editor.drag(editor.at('[data-part="yaw"]'), editor.at(".joyimage-tick >> nth=2"))
    assert camera(editor) == (90, 15, "unchanged")


def test_a_view_whose_numbers_come_from_a_connected_node_is_shaded(editor):
    node = put(editor, CAMERA, yaw=30, pitch=15)
    view = editor.page.locator(".joyimage:has(.joyimage-sentence)")
    assert view.get_attribute("data-connected") is None
    number = editor.add("PrimitiveFloat", 500, 0, value=60)
    editor.connect(number, 0, node, "yaw")
    editor.settle()
    assert view.get_attribute("data-connected") == "Connected: yaw"
    x, y = editor.at(STAGE, 0.2, 0.85)
    editor.drag((x, y), (x + 60, y - 60))
    inputs = editor.inputs(CAMERA)
    assert (inputs["yaw"], inputs["pitch"]) == ([str(number), 0], 15)


def test_the_orbits_ends_are_dragged(editor):
    put(editor, ORBIT, yaw_start=0, yaw_end=180, views=5)
    assert editor.page.locator(".joyimage-view").count() == 5
    editor.drag(editor.at('[data-end="yaw_end"]'), editor.at(".joyimage-tick >> nth=2"))
    editor.drag(editor.at('[data-end="yaw_start"]'), editor.at(".joyimage-tick >> nth=7"))
    inputs = editor.inputs(ORBIT)
    assert (inputs["yaw_start"], inputs["yaw_end"]) == (-45, 90)
    assert editor.page.locator(".joyimage-status").text_content() == "5 views · -45° -11.3° 22.5° 56.3° 90°"
    editor.press("ArrowRight")
    assert editor.inputs(ORBIT)["yaw_end"] == 105
    editor.press("Control+z", "Control+z")
    assert (editor.inputs(ORBIT)["yaw_start"], editor.inputs(ORBIT)["yaw_end"]) == (0, 90)


def test_an_orbit_that_the_node_would_refuse_is_marked(editor):
    put(editor, ORBIT, yaw_start=-90, yaw_end=300, views=5)
    assert editor.page.locator(".joyimage-wrong").is_visible()


def test_the_dial(editor):
    put(editor, ROTATE, object="chair", view="front")
    for side in spatial.VIEWS:
        editor.page.locator(f'[data-side="{side}"] text').click()
        editor.settle()
        assert editor.inputs(ROTATE) == {"object": "chair", "view": side}
    editor.press("ArrowRight", "ArrowRight")  # from rear left
    assert editor.inputs(ROTATE)["view"] == "front left"
    assert editor.page.locator('[role=radio][aria-checked="true"]').get_attribute("aria-label") == "Front left"
    editor.press("Control+z")
    assert editor.inputs(ROTATE)["view"] == "left"


def watch_previews(editor: Editor, node: int) -> None:
    """From now on, note the pictures of a running sampler that the page shows on a node."""
    script = """id => {
        const node = app.graph.getNodeById(id);
        window.previews = new Set();
        setInterval(() => {
            const inside = [...document.querySelectorAll(`[data-node-id="${id}"] img`)];
            const drawn = node.widgets.some(({ name }) => name === "$$canvas-image-preview") ? node.imgs : [];
            for (const { src, naturalWidth } of [...inside, ...(drawn ?? [])])
                if (src.startsWith("blob:") && naturalWidth > 0) previews.add(src);
        }, 10);
    }"""
    editor.page.evaluate(script, node)


def is_red(picture: Image.Image) -> np.ndarray:
    return judge.segment(np.asarray(picture.convert("RGB"))) == COLOUR_NAMES.index("red")


def test_a_whole_job_by_hand(editor, tmp_path):
    """Load a picture, draw the box, run, see the object come into being there, and compare before and after."""
    steps = 20
    nodes = {
        "picture": editor.add("LoadImage", 0, 0, image=SCENE),
        "move": editor.add("JoyImageMoveObject", 300, 0, object="red cube"),
        "model": editor.add("JoyImageLoadMMDiT", 0, 1200, model=TINY),
        "vae": editor.add("JoyImageLoadVAE", 0, 1400, vae=TINY),
        "encoder": editor.add("JoyImageLoadEncoder", 0, 1600, encoder=TINY),
        "encode": editor.add("JoyImageEncodePrompt", 400, 1200),
        "sampler": editor.add("JoyImageSampler", 1050, 0, steps=steps, seed=int(editor.nodes_2)),
        "decode": editor.add("VAEDecode", 1200, 1200),
        "compare": editor.add("JoyImageCompare", 700, 0),
    }
    for source, slot, target, name in (
        ("picture", 0, "move", "image"), ("move", 0, "encode", "images.image0"), ("move", 1, "encode", "prompt"),
        ("encoder", 0, "encode", "encoder"), ("vae", 0, "encode", "vae"), ("model", 0, "sampler", "model"),
        ("encode", 0, "sampler", "positive"), ("encode", 1, "sampler", "negative"), ("encode", 2, "sampler", "latent"),
        ("sampler", 0, "decode", "samples"), ("vae", 0, "decode", "vae"), ("picture", 0, "compare", "before"),
        ("decode", 0, "compare", "after"),
    ):  # fmt: skip
        editor.connect(nodes[source], slot, nodes[target], name)
    editor.ready()
    frame = ".joyimage-box .joyimage-frame"
    editor.page.wait_for_function("document.querySelector('.joyimage-box img').naturalWidth === 64")
    left, top, right, bottom = (side / 64 for side in EXAMPLES[0].box)
    editor.drag(editor.at(frame, left, top), editor.at(frame, right, bottom))
    drawn = json.loads(editor.inputs("JoyImageMoveObject")["box"])
    assert drawn["w"] == pytest.approx(right - left, abs=0.01)
    assert editor.page.locator(".joyimage-compare .joyimage-hint").is_visible()
    watch_previews(editor, nodes["sampler"])
    assert editor.page.evaluate("previews.size") == 0
    before = editor.queue()
    editor.page.wait_for_function("previews.size > 0", polling=20, timeout=LOAD)
    assert len(editor.client.get("/history")) == before  # it is seen before the run has ended
    editor.page.screenshot(path=tmp_path / "preview.png")
    editor.finish(before)
    assert 1 < editor.page.evaluate("previews.size") <= steps
    editor.page.wait_for_function("document.querySelectorAll('.joyimage-compare img[src]').length === 2")
    assert not editor.page.locator(".joyimage-compare .joyimage-hint").is_visible()
    after = editor.page.get_by_alt_text("after").evaluate("image => image.src")
    rows, columns = np.nonzero(is_red(Image.open(io.BytesIO(editor.page.request.get(after).body()))))
    assert len(rows) > 100 and left < columns.mean() / 64 < right and top < rows.mean() / 64 < bottom
    slider = editor.page.locator(".joyimage-compare")
    editor.drag(editor.at(".joyimage-compare"), editor.at(".joyimage-compare", 0.25))
    assert slider.get_attribute("aria-valuenow") == "25"
    editor.press("ArrowRight")
    assert slider.get_attribute("aria-valuenow") == "30"
    editor.page.screenshot(path=tmp_path / "job.png")
    print(tmp_path)


def test_a_reloaded_page_has_its_comparison_back_with_the_next_run(editor):
    """The pictures of a run are the server's, as those of all nodes; the slider itself starts in the middle."""
    picture = editor.add("LoadImage", 0, 0, image=PICTURE)
    invert, compare = editor.add("ImageInvert", 300, 300), editor.add("JoyImageCompare", 300, 0)
    for source, target, name in ((picture, invert, "image"), (picture, compare, "before"), (invert, compare, "after")):
        editor.connect(source, 0, target, name)
    editor.ready()
    shown = "document.querySelectorAll('.joyimage-compare img[src]').length === 2"
    editor.run()
    editor.page.wait_for_function(shown)
    editor.page.wait_for_timeout(PERSISTED)
    editor.reload()
    assert editor.page.locator(".joyimage-compare .joyimage-hint").is_visible()
    editor.run()
    editor.page.wait_for_function(shown)
    editor.drag(editor.at(".joyimage-compare"), editor.at(".joyimage-compare", 0.25))
    assert editor.page.locator(".joyimage-compare").get_attribute("aria-valuenow") == "25"


def test_the_orbits_results_are_a_filmstrip(editor):
    picture = editor.add("LoadImage", 400, 0, image=PICTURE)
    orbit = editor.add(ORBIT, 0, 0, views=3)
    encode = editor.add("JoyImageEncodePrompt", 400, 600, base_size="256")
    encoder = editor.add("JoyImageLoadEncoder", 0, 1000, encoder=TINY)
    vae = editor.add("JoyImageLoadVAE", 0, 1200, vae=TINY)
    decode, preview = editor.add("VAEDecode", 800, 600), editor.add("PreviewImage", 800, 0)
    for source, slot, target, name in (
        (picture, 0, encode, "images.image0"), (orbit, 0, encode, "prompt"), (encoder, 0, encode, "encoder"),
        (vae, 0, encode, "vae"), (encode, 2, decode, "samples"), (vae, 0, decode, "vae"),
        (decode, 0, preview, "images"),
    ):  # fmt: skip
        editor.connect(source, slot, target, name)
    editor.ready()
    assert not editor.page.locator(".joyimage-film").is_visible()
    editor.run()
    editor.page.wait_for_function("document.querySelectorAll('.joyimage-film img').length === 3")
    editor.drag(editor.at(".joyimage-film", 0.1), editor.at(".joyimage-film", 0.9))
    film = editor.page.locator(".joyimage-film")
    assert film.get_attribute("aria-valuenow") == "3"
    assert editor.page.locator(".joyimage-result").get_attribute("src") == film.locator("img").nth(2).get_attribute(
        "src"
    )
    editor.press("ArrowLeft")
    assert film.get_attribute("aria-valuenow") == "2"
