"""README, CONTRIBUTING, the changelog and docs/: links lead somewhere, files that tables name are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

import joyimage

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
ARCHITECTURE = ROOT / "docs" / "architecture.md"
TABLED = [ARCHITECTURE, *sorted((ROOT / "docs" / "contributing").glob("*.md"))]
MOST_LINES = 140  # of the README
MOST_BYTES = 300_000  # of a picture
LINK = re.compile(r"(!?)\[((?:!\[.*?\]\(.*?\)|[^\[\]])*)\]\(([^()\s]+)\)")
CODE = re.compile(r"(?s:^```.*?^```$)|^    .*$|`[^`\n]*`", re.MULTILINE)
ELSEWHERE = re.compile(r"^[a-z][a-z+.-]*:")
FILE = re.compile(r"`([\w.\-]+(?:/[\w.\- ]+)*(?:/|\.\w+))`")
# What the pages do not speak of.
UNSAID = re.compile(r"\bagents?\b|\bsession\b|\bissue \d|#\d+\b|/work/|/tmp/|\bmirror\b", re.IGNORECASE)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings: words in lower case, joined by hyphens, without punctuation."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
        number = next(n for n in range(len(found) + 1) if f"{anchor}-{n}".removesuffix("-0") not in found)
        found.add(f"{anchor}-{number}".removesuffix("-0"))
    return found


def links(page: Path) -> list[str]:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    found = LINK.findall(text)
    found += [inner for _, words, _ in found for inner in LINK.findall(words)]  # a picture as the words of a link
    return [target for *_, target in found]


def rows(page: Path) -> list[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith("| ---")]


def modules() -> list[list[Path]]:
    """The library's files by the rows of their table, from the ground up; a folder stands for all that it holds."""
    text = ARCHITECTURE.read_text(encoding="utf-8").split("## The library's files\n", 1)[1].split("\n## ")[0]
    named = ([ROOT / file for file in FILE.findall(line)] for line in text.splitlines() if line.startswith("| "))
    return [
        [file for path in row for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
        for row in named
        if row
    ]


def imported(file: Path) -> set[Path]:
    """The library's files that one imports when it is imported itself."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for path in (base, *(base / alias.name for alias in node.names)):
            found |= {each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()}
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_something(page):
    broken = []
    for target in links(page):
        if ELSEWHERE.match(target):
            continue
        path, _, anchor = unquote(target).partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or not place.is_relative_to(ROOT) or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


def test_links_and_anchors_are_found(tmp_path):
    """What the test above rests on."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`: c\n## A b c\n[![p](p.png)](q.md) [x](y.md#z-1)\n`[not](this)`\n\n    [nor](this)\n\n[l](m)\n"
    )
    assert links(page) == ["q.md", "y.md#z-1", "m", "p.png"]
    assert anchors(page) == {"a-b-c", "a-b-c-1"}


def test_every_page_is_linked():
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in links(page)}
    assert [name(page) for page in PAGES if page not in linked | {ROOT / "README.md"}] == []


@pytest.mark.parametrize("page", TABLED, ids=name)
def test_files_in_tables_are_there(page):
    files = [file for row in rows(page) for file in FILE.findall(row)]
    assert len(files) > 5
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_the_newcomers_questions_are_answered_by_one_file_each():
    table = ARCHITECTURE.read_text(encoding="utf-8").split("## A newcomer's questions\n", 1)[1]
    answers = [FILE.findall(line) for line in table.splitlines() if line.startswith("| ") and "?" in line]
    assert len(answers) >= 10
    assert all(len(files) == 1 and (ROOT / files[0]).is_file() for files in answers)


def test_every_file_of_the_library_is_in_a_row():
    listed = {file for row in modules() for file in row}
    files = {file for file in (ROOT / "joyimage").rglob("*.py") if not file.name.startswith("__")}
    assert len(files) > 50
    assert sorted(map(name, files - listed)) == []


def test_imports_run_from_lower_rows_to_upper_ones():
    table = modules()
    height = {file: number for number, row in enumerate(table) for file in row}
    assert len(height) == sum(map(len, table)) > 30
    upwards = [
        f"{name(file)} imports {name(other)}"
        for file, own in height.items()
        for other in imported(file)
        if height.get(other, own) > own
    ]
    assert upwards == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").iterdir()), ids=name)
def test_pictures_are_used_and_small(picture):
    used = {(page.parent / target).resolve() for page in PAGES for target in links(page)}
    assert picture in used
    assert picture.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_speak_of_the_project_alone(page):
    assert UNSAID.findall(page.read_text(encoding="utf-8")) == []


def test_one_place_names_the_version():
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert joyimage.__version__ == version
    released = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert version in released
    code = [path for folder in ("joyimage", "nodes") for path in (ROOT / folder).rglob("*.py")]
    assert [name(path) for path in code if f'"{version}"' in path.read_text(encoding="utf-8")] == []
