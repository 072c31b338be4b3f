"""The graphs for the published model on a machine that has none of its files: the page offers each of them."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright", reason="no Playwright to open pages with: pip install playwright")

from tools.workflows import load
from tools.workflows import page as editor
from tools.workflows.parts import EDIT_FILES, PLUS_FILES

PLUS, ASK = "Edit with three images", "Ask about an image"
NAMES = ["Edit an image", PLUS, ASK, "Move an object (app)"]  # one for each set of files; loaders are tested in all
DETAILS = "View details"
OFFERED = """count => [...document.querySelectorAll("button")]
  .filter(button => button.textContent.trim() === "Download").length === count"""


@pytest.fixture(scope="module")
def page(client):
    if editor.CHROMIUM is None:
        pytest.skip("no Chromium to open pages with: apt-get install chromium")
    with editor.open_page(f"http://{client.address}", nodes_2=False) as page:
        yield page


@pytest.mark.parametrize("name", NAMES)
def test_offers_what_is_missing(page, name):
    """But for the Plus model's own files, whose addresses are not known for certain."""
    files = {PLUS: [PLUS_FILES["vae"]], ASK: [EDIT_FILES["encoder"]]}.get(name, list(EDIT_FILES.values()))
    workflow = load(name)
    workflow["extra"].pop("linearMode", None)  # seen as a graph
    editor.open_workflow(page, workflow)
    if not page.get_by_text("Missing Models").is_visible():
        page.get_by_text(DETAILS).first.click()
    page.wait_for_function(OFFERED, arg=len(files))
    for file in files:
        assert page.get_by_text(file.name, exact=True).first.is_visible()
