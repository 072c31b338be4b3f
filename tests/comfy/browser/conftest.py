"""ComfyUI's page in Chromium: two versions of the frontend, each with its classic renderer and with Nodes 2.0."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from editor import LOAD, Editor
from PIL import Image

from joyimage.demo import asset

PICTURE, SCENE = "picture.png", "scene.png"  # the latter is one of those that the bundled model knows
NEWEST = Path(os.environ.get("COMFYUI_NEWEST_FRONTEND") or "~/comfy/frontend-new").expanduser()
STATIC = NEWEST / "comfyui_frontend_package" / "static"
NO_BROWSER = "no browser to test with: pip install playwright, and install Chromium"
NO_NEWEST = (
    "no second frontend to test with: pip install --no-deps --target ~/comfy/frontend-new comfyui-frontend-package, "
    "or set COMFYUI_NEWEST_FRONTEND"
)
TIMEOUT = 10_000  # milliseconds, for what happens on the page
OURS = "ComfyUI-JoyImage"  # in the addresses of our scripts
# The frontend warns from its own scripts: name those of ours that were the cause.
BLAME = f"""const warn = console.warn;
console.warn = (...words) => warn(...words, ...(Error().stack.match(/{OURS}[^)]*/) ?? []));"""
FRONTENDS = ("pinned", "newest")


def pytest_terminal_summary(terminalreporter):
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for reason in (NO_BROWSER, NO_NEWEST):
        if any(reason in text for text in skipped):
            terminalreporter.write_line(f"tests/comfy/browser skipped, {reason}")


@pytest.fixture(scope="session", params=FRONTENDS)
def website(request, serve, make_base):
    """A server with one of the frontends, and a picture to load."""
    if request.param == "newest" and not STATIC.is_dir():
        pytest.skip(NO_NEWEST)
    base = make_base()
    asset("move.png").save(base / "input" / SCENE)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC).save(base / "input" / PICTURE)
    options = ["--front-end-root", str(STATIC)] if request.param == "newest" else []
    with serve(base, *options) as client:
        yield client


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes2"])
def session(request, website):
    """The page of one renderer, for a module's tests: Playwright cannot be open twice, and others open it too."""
    pytest.importorskip("playwright.sync_api", reason=NO_BROWSER)
    from playwright.sync_api import sync_playwright

    from tools.workflows.page import CHROMIUM, FLAGS, SETTINGS

    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    website.post("/settings", {**SETTINGS, "Comfy.VueNodes.Enabled": request.param, "Comfy.Minimap.Visible": False})
    server = f"http://{website.address}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(TIMEOUT)
        page.route(lambda url: not url.startswith((server, "data:", "blob:")), lambda route: route.abort())
        page.add_init_script(BLAME)
        editor = Editor(page, website, nodes_2=request.param)
        page.on("pageerror", lambda error: editor.complaints.append(f"error: {error}"))
        page.on("console", lambda message: note(editor, message))
        page.goto(server, timeout=LOAD)
        editor.opened()
        yield editor
        browser.close()


def note(editor: Editor, message) -> None:
    """Keep what our scripts, or calls of ours that the frontend dislikes, write to the console."""
    if OURS in message.location.get("url", "") or OURS in message.text:
        editor.complaints.append(f"{message.type}: {message.text}")


@pytest.fixture
def editor(session) -> Editor:
    """An editor with an empty graph; the test fails if the page complains."""
    session.complaints.clear()
    session.clear()
    yield session
    assert session.complaints == []
