"""Sizes at which a file, a class and a function can still be read in one go; import order is tested in test_pages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "joyimage").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")])
MOST_LINES = {"file": 400, "class": 220, "function": 45}
DECLARATION = "define_schema"  # of a node: a list of its inputs and outputs, however long


def lines(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_too_long(path):
    text = path.read_text(encoding="utf-8")
    found = {path.name: ("file", len(text.splitlines()))}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            schemas = [part for part in node.body if getattr(part, "name", "") == DECLARATION]
            found[node.name] = "class", lines(node) - sum(map(lines, schemas))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != DECLARATION:
            found[f"{node.name}, line {node.lineno}"] = "function", lines(node)
    long = {name: count for name, (kind, count) in found.items() if count > MOST_LINES[kind]}
    assert not long
