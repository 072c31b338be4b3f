"""What `make mutants` takes for granted: which lines tell of a change, and that what it leaves unexplained is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools.mutants.reach import Library, Reach

ROOT = Path(__file__).parents[1]
SOURCES = {
    "a.py": """\
TABLE = {
    "one": 1,
}
LATER = sorted(TABLE)


def first(x=3):
    if x:
        return TABLE[
            x
        ]
    return x


class Size:
    width = 4

    def area(self):
        return self.width
""",
    "b.py": """\
import a


def last():
    return a.LATER
""",
}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (8, {("a.py", 8)}),
        (10, {("a.py", 9), ("a.py", 10), ("a.py", 11)}),
        (7, {("a.py", n) for n in range(8, 13)}),
        (2, {("a.py", 9), ("a.py", 10), ("a.py", 11), ("b.py", 5)}),
        (4, {("b.py", 5)}),
        (16, {("a.py", 19)}),
    ],
    ids=["condition", "statement", "default", "table", "constant", "attribute"],
)
def test_a_change_is_noticed_where_it_has_effect(line, expected):
    library = Library({name: ast.parse(source) for name, source in SOURCES.items()})
    assert library.lines("a.py", line) == expected


def test_a_test_that_reads_a_table_counts_though_it_runs_no_line_of_it():
    tests = {"t.py": "from a import TABLE as SIZES", "u.py": "import a\nassert a.LATER", "v.py": "import b"}
    trees = ({name: ast.parse(source) for name, source in sources.items()} for sources in (SOURCES, tests))
    library = Library(*trees)
    assert [library.test_files("a.py", line) for line in (2, 4, 9)] == [{"t.py"}, {"u.py"}, set()]
    reach = Reach(seconds={"t.py::one": 1.0, "u.py::two": 1.0})
    assert reach.of(set(), {"t.py"}) == ["t.py::one"]


def test_lines_of_a_shared_fixture_are_those_of_every_test_that_uses_it():
    reach = Reach()
    tests = {
        "fixture model": {"seconds": 1.0, "fixtures": []},
        "t.py::quick": {"seconds": 0.1, "fixtures": ["model"]},
        "t.py::slow": {"seconds": 2.0, "fixtures": ["model"]},
        "t.py::other": {"seconds": 0.2, "fixtures": []},
    }
    reach.add({"tests": tests, "lines": {"a.py": {"1": ["fixture model", "t.py::failed", ""], "2": ["t.py::other"]}}})
    assert reach.of({("a.py", 1)}) == ["t.py::quick", "t.py::slow"]
    assert reach.of({("a.py", 1), ("a.py", 2)}) == ["t.py::quick", "t.py::other", "t.py::slow"]


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def test_what_is_explained_stands_in_the_library():
    tomllib = pytest.importorskip("tomllib", reason="the tool needs Python 3.11")
    explained = tomllib.loads(read("tools/mutants/equivalent.toml"))
    for entry in explained.get("mutant", []):
        source, before = (re.sub(r"\s+", " ", text) for text in (read(entry["file"]), entry["before"]))
        assert before in source, entry
        assert entry["why"]
