"""The server's page in Chromium: a picture, a box drawn by hand, a run, before and after."""

from __future__ import annotations

import base64
import io

import pytest
from live_server import KEY, live_server, model, scene, until
from PIL import Image

from joyimage import spatial
from joyimage.demo import ASSETS

pytest.importorskip("playwright.sync_api", reason="no browser to test with")

TIMEOUT = 20_000  # milliseconds
PICTURE = ASSETS / "move.png"
RED = (27, 6, 43, 28)


@pytest.fixture(scope="module")
def live():
    return live_server()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    from tools.workflows.page import CHROMIUM, FLAGS

    if CHROMIUM is None:
        pytest.skip("no browser to test with")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=[(1200, "light"), (400, "dark")], ids=["wide", "narrow"])
def page(request, browser, live):
    """The page, which asks for nothing elsewhere and complains of nothing."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(TIMEOUT)
    complaints, asked = [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda sent: None if sent.url.startswith((live.url, "blob:", "data:")) else asked.append(sent.url)
    )
    page.goto(live.url)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    page.close()
    assert [each for each in complaints if "401" not in each and "400" not in each] == []
    assert [url for url in asked if not url.startswith((live.url, live.locked, "blob:", "data:"))] == []


def choose(page, task: str) -> None:
    page.get_by_role("radio", name=task, exact=True).check()


def settle(page, **fields: str) -> None:
    page.locator("form details").first.evaluate("element => { element.open = true }")
    for name, text in {"steps": "1", **fields}.items():
        page.locator(f"#{name}").fill(text)


def run(page) -> None:
    page.get_by_role("button", name="Run").click()
    page.locator("#run:not([disabled])").wait_for()


def drag(page, box) -> None:
    """A box drawn on the picture, in its pixels."""
    place = page.locator("#stage img").bounding_box()
    scale = place["width"] / scene().width
    left, top, right, bottom = (place[side] + scale * at for side, at in zip("xyxy", box, strict=True))
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move((left + right) / 2, bottom)
    page.mouse.move(right, bottom)
    page.mouse.up()


def picture(page, selector: str) -> Image.Image:
    """What an image on the page shows, in its own pixels."""
    data = page.locator(selector).evaluate(
        """async image => { await image.decode(); const canvas = document.createElement('canvas');
        canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
        canvas.getContext('2d').drawImage(image, 0, 0); return canvas.toDataURL().split(',')[1]; }"""
    )
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def test_an_object_is_moved_into_a_box_drawn_by_hand(page):
    choose(page, "Move")
    page.locator("#files").set_input_files(PICTURE)
    page.locator("#object").fill("pink cylinder")
    until(lambda: page.evaluate("document.querySelector('#stage img').naturalWidth") == 64)
    page.locator("#stage").scroll_into_view_if_needed()
    drag(page, RED)
    drawn = [int(page.locator(f"#{side}").input_value()) for side in ("left", "top", "right", "bottom")]
    assert all(abs(a - b) <= 1 for a, b in zip(drawn, RED, strict=True))
    settle(page, seed="3")
    run(page)
    sentence = spatial.move_object("pink cylinder")
    (made,) = model().edit(spatial.draw_box(scene(), drawn), sentence, seed=3, steps=1)
    assert picture(page, ".compare img:not(.before)").tobytes() == made.tobytes()
    assert picture(page, ".compare .before").tobytes() == scene().tobytes()


def test_the_slider_parts_before_and_after(page):
    page.locator("#files").set_input_files(PICTURE)
    page.locator("#prompt").fill("Remove the car.")
    settle(page)
    run(page)
    slider = page.get_by_role("slider", name="Before and after")
    slider.focus()
    slider.press("End")
    clipped = "getComputedStyle(document.querySelector('.compare .before')).clipPath"
    assert "0%" in page.evaluate(clipped) or page.evaluate(clipped) == "inset(0px)"
    slider.press("Home")
    assert "100%" in page.evaluate(clipped)


def test_the_box_by_keys_and_by_numbers(page):
    choose(page, "Move")
    page.locator("#files").set_input_files(PICTURE)
    until(lambda: page.evaluate("document.querySelector('#stage img').naturalWidth") == 64)
    corners = [page.locator(f"#{side}") for side in ("left", "top", "right", "bottom")]
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    first = [int(corner.input_value()) for corner in corners]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    assert [int(corner.input_value()) for corner in corners] == [first[0] + 1, first[1], first[2] + 1, first[3] + 1]
    corners[0].fill("5")
    corners[0].press("Tab")
    assert page.locator("#stage rect").get_attribute("x") == "5"
    page.locator("#stage").focus()
    page.keyboard.press("Delete")
    assert [corner.input_value() for corner in corners] == [""] * 4


def test_a_question_is_answered_and_an_object_found(page):
    choose(page, "Ask")
    page.locator("#files").set_input_files(PICTURE)
    page.locator("#prompt").fill("Which colour is the cylinder?")
    run(page)
    assert page.locator("#said").inner_text().strip()
    choose(page, "Find")
    page.locator("#object").fill("pink cylinder")
    run(page)
    boxes = model().locate(scene(), "pink cylinder")
    assert page.locator("#said").inner_text() == "\n".join(
        f"pink cylinder: {', '.join(map(str, box))}" for box in boxes
    )
    assert page.locator("#stage rect").count() == len(boxes)


def test_pictures_from_text(page):
    choose(page, "Make")
    page.locator("#prompt").fill("a red cube")
    settle(page, seed="4")
    run(page)
    (made,) = model().generate("a red cube", seed=4, steps=1)
    assert picture(page, "#result img").tobytes() == made.tobytes()


def test_what_is_wrong_is_said(page):
    run(page)
    assert page.get_by_role("alert").inner_text() == "the picture is missing"
    page.locator("#files").set_input_files(PICTURE)
    run(page)
    assert "prompt is empty" in page.get_by_role("alert").inner_text()


def test_a_run_can_be_stopped(page, live):
    choose(page, "Make")
    page.locator("#prompt").fill("a red cube")
    settle(page, steps="1000")
    with live.set(max_steps=1000):
        page.get_by_role("button", name="Run").click()
        until(lambda: live.pool.running)
        page.get_by_role("button", name="Stop").click()
        until(lambda: not live.busy)
    assert page.get_by_role("alert").count() == 0


def test_the_key_is_asked_for_and_taken(page, live):
    page.goto(live.locked)
    choose(page, "Make")
    page.locator("#prompt").fill("a red cube")
    settle(page)
    run(page)
    assert "the key is missing or wrong" in page.get_by_role("alert").inner_text()
    page.locator("#key").fill(KEY)
    run(page)
    assert picture(page, "#result img").size == (64, 64)
    page.goto(live.url)


def test_the_endpoints_are_listed(page):
    page.get_by_role("link", name="Endpoints").click()
    page.get_by_role("heading", name="POST /v1/images/edits").wait_for()
    assert page.get_by_text("guidance_scale", exact=True).count() >= 3


def test_every_field_has_a_name_and_every_task_only_its_fields(page):
    unnamed = """[...document.querySelectorAll('input, select, textarea')]
        .filter(field => !field.labels.length && !field.ariaLabel).length"""
    assert page.evaluate(unnamed) == 0
    shown = {"Edit": "prompt", "Rotate": "view", "Camera": "yaw", "Find": "object", "Move": "left"}
    for task, field in shown.items():
        choose(page, task)
        visible = [name for name in shown.values() if page.locator(f"#{name}").is_visible()]
        assert field in visible and ("prompt" in visible) == (task == "Edit")
