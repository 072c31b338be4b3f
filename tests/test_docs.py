"""The help pages, their pictures and the translated names, as far as they can be checked without ComfyUI."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "web" / "docs"
NODES = sorted(page.stem for page in DOCS.glob("*.md"))
PAGES = [DOCS / page for node in NODES for page in (f"{node}.md", f"{node}/zh.md")]
LANGUAGES = ("zh", "ja", "ko")
MAX_PICTURES = 72_000 * len(NODES)  # bytes, all of them together
MESSAGE_SYNTAX = re.compile(r"[{}@|]")  # the editor would take names that hold these for message templates


def relative(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def rows(page: Path, section: int) -> list[str]:
    """The first cells of the table in a section: 1 is inputs, 2 outputs."""
    text = page.read_text(encoding="utf-8").split("\n## ")[section]
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")]


def translated(language: str, name: str) -> dict:
    return json.loads((ROOT / "locales" / language / f"{name}.json").read_text(encoding="utf-8"))


def chinese(name: str) -> dict:
    return translated("zh", name)


def test_every_page_is_there_in_both_languages():
    assert NODES
    assert sorted(page.parent.name for page in DOCS.glob("*/zh.md")) == NODES
    assert sorted(chinese("nodeDefs")) == NODES


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_page_has_its_sections_and_its_picture(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("\n## ") == 5
    (picture,) = re.findall(r"!\[.+\]\((.+)\)", text)
    with Image.open(DOCS / picture) as image:  # the editor resolves it from docs/, for both languages
        assert min(image.size) > 50


def test_all_pictures_are_used_and_small():
    used = {
        DOCS / name for page in PAGES for name in re.findall(r"\]\((images/.+)\)", page.read_text(encoding="utf-8"))
    }
    files = {path for path in (DOCS / "images").rglob("*") if path.is_file()}
    assert files == used
    assert sum(path.stat().st_size for path in files) < MAX_PICTURES


@pytest.mark.parametrize("node", NODES)
def test_chinese_pages_call_everything_as_the_editor_does(node):
    """Each cell reads `name` and the Chinese label; names that the host translates by their type have none."""
    definition = chinese("nodeDefs")[node]
    english, translated = DOCS / f"{node}.md", DOCS / node / "zh.md"
    assert translated.read_text(encoding="utf-8").startswith(f"# {definition['display_name']}\n")
    labels = [f"{cell} {definition['inputs'][cell.strip('`')]['name']}" for cell in rows(english, 1)]
    assert rows(translated, 1) == labels
    outputs = definition.get("outputs", {})
    labels = [f"{cell} {outputs.get(str(i), {}).get('name', '')}".strip() for i, cell in enumerate(rows(english, 2))]
    assert rows(translated, 2) == labels


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_quoted_errors_are_those_that_the_code_raises(page):
    code = "".join(
        path.read_text(encoding="utf-8") for name in ("nodes", "joyimage") for path in (ROOT / name).rglob("*.py")
    )
    errors = page.read_text(encoding="utf-8").split("\n## ")[-1]
    quoted = re.findall(r"^- `(.+?)`", errors, re.MULTILINE)
    assert [text for text in quoted if text not in code] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
def test_translated_names_hold_no_template_syntax(node, language):
    definition = translated(language, "nodeDefs")[node]
    named = [definition["display_name"], definition["description"]]
    for part in ("inputs", "outputs"):
        named += [entry["name"] for entry in definition.get(part, {}).values() if "name" in entry]
    assert [name for name in named if MESSAGE_SYNTAX.search(name)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_settings_hold_no_template_syntax(language):
    texts = json.dumps([list(entry.values())[:2] for entry in translated(language, "settings").values()])
    assert not MESSAGE_SYNTAX.search(texts)
