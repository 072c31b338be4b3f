"""ComfyUI's page in headless Chromium: to open workflows as a user does."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
# A user who has been here before: no tour, no news, nothing over the graph.
SETTINGS = {
    "Comfy.Locale": "en",
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "99.0.0",
    "Comfy.RightSidePanel.IsOpen": False,
}
READY = "() => window.app?.graph && !document.querySelector('#splash-loader')"
SECONDS = 1000  # Playwright counts milliseconds


@contextmanager
def open_page(
    server: str, nodes_2: bool, size: tuple[int, int] = (1600, 1000), settings: Mapping[str, Any] | None = None
) -> Iterator[Page]:
    """The page of the server at an address such as http://127.0.0.1:8188, in the new renderer or the classic one.

    Nothing that is not on this machine is asked for. Raises `playwright.sync_api.Error` if the page does not come up.
    """
    settings = {**SETTINGS, "Comfy.VueNodes.Enabled": nodes_2, **(settings or {})}
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{server}/settings", json.dumps(settings).encode(), headers)).close()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.route(lambda url: not url.startswith((server, "data:", "blob:")), lambda route: route.abort())
        page.goto(server)
        page.wait_for_function(READY, timeout=60 * SECONDS)
        yield page
        browser.close()


def open_workflow(page: Page, workflow: dict[str, Any]) -> None:
    """Load a workflow in UI format, as dropping its file on the page does."""
    page.evaluate("async workflow => { await app.loadGraphData(workflow) }", workflow)


def prompt(page: Page) -> dict[str, Any]:
    """What the page would post to run its graph."""
    return json.loads(page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)"))
