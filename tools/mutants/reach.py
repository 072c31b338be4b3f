"""Which tests reach which line of the library: a pytest plugin that writes it down, and the tests chosen from that.

coverage.py keeps the test that runs as the context of each line. A shared fixture is a context of its own, since its
lines run in the first test that asks for it and count for all.
"""

import ast
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FIXTURE = "fixture "  # begins the name of a context that is a shared fixture


class Recorder:
    """Writes the lines and seconds of each test that passes, and of each shared fixture, to a JSON file."""

    def __init__(self, file: Path):
        import coverage

        self.file = file
        self.context = ""
        self.tests: dict[str, dict] = {}
        self.unfit: set[str] = set()
        self.coverage = coverage.Coverage(data_file=None, source=["joyimage"], config_file=False)
        self.coverage.start()

    def _switch(self, context: str) -> None:
        self.context = context
        self.coverage.switch_context(context)
        self.tests.setdefault(context, {"seconds": 0.0, "fixtures": []})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self._switch(item.nodeid)
        self.tests[item.nodeid]["fixtures"] = list(item.fixturenames)
        begin = time.perf_counter()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid]["seconds"] = time.perf_counter() - begin

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if fixturedef.scope == "function":
            return (yield)
        outer = self.context
        self._switch(f"{FIXTURE}{fixturedef.argname}")
        begin = time.perf_counter()
        try:
            return (yield)
        finally:
            self.tests[self.context]["seconds"] += time.perf_counter() - begin
            self._switch(outer)

    def pytest_runtest_logreport(self, report):
        if report.outcome != "passed":
            self.unfit.add(report.nodeid)

    def pytest_sessionfinish(self):
        self.coverage.stop()
        data = self.coverage.get_data()
        root = Path.cwd()
        lines = {
            Path(file).relative_to(root).as_posix(): data.contexts_by_lineno(file) for file in data.measured_files()
        }
        tests = {name: entry for name, entry in self.tests.items() if name and name not in self.unfit}
        self.file.write_text(json.dumps({"tests": tests, "lines": lines}), encoding="utf-8")


@dataclass
class Reach:
    """What has been recorded, of all test files."""

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))  # by file and line
    breadth: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # lines of the library that a test runs

    def add(self, record: dict) -> None:
        """Take in the record of one test file."""
        users = defaultdict(list)
        for test, entry in record["tests"].items():
            if not test.startswith(FIXTURE):
                self.seconds[test] = entry["seconds"]
                for name in entry["fixtures"]:
                    users[FIXTURE + name].append(test)
        for file, lines in record["lines"].items():
            for line, contexts in lines.items():
                reached = {test for c in contexts for test in ([c] if c in self.seconds else users[c])}
                self.tests[file, int(line)] |= reached
                for test in reached:
                    self.breadth[test] += 1

    def of(self, lines: set[tuple[str, int]], files: set[str] = frozenset()) -> list[str]:
        """The tests that run any of the lines, or stand in the files, the cheapest and most specific first."""
        reached = set().union(*(self.tests.get(line, ()) for line in lines))
        reached |= {test for test in self.seconds if test.split("::")[0] in files}
        return sorted(reached, key=lambda test: ((0.01 + self.seconds[test]) * self.breadth[test], test))


@dataclass
class Library:
    """The modules and tests as syntax trees: what runs with a line, and what uses a constant."""

    trees: dict[str, ast.Module]
    tests: dict[str, ast.Module] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> "Library":
        files = (sorted((root / "joyimage").rglob("*.py")), sorted((root / "tests").glob("test_*.py")))
        read = ({f.relative_to(root).as_posix(): ast.parse(f.read_text(encoding="utf-8")) for f in of} for of in files)
        return cls(*read)

    def test_files(self, file: str, line: int) -> set[str]:
        """The test files that name the table or constant of this line: a test that reads one runs no line."""
        path = _enclosing(self.trees[file], line)
        names = _bound(path[0]) if len(path) == 1 else set()
        return {test for test, tree in self.tests.items() if any(_named(node) in names for node in ast.walk(tree))}

    def lines(self, file: str, line: int) -> set[tuple[str, int]]:
        """The lines whose tests can notice a change of this one.

        In a function these are its statement's. A default value runs on import, and so do tables and constants: then
        they are the function's, and those that name what is bound there, or what is computed from it.
        """
        path = _enclosing(self.trees[file], line)
        functions = [node for node in path if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        inner = functions[-1] if functions else None
        if inner is None:
            return self._uses(_bound(path[-1])) or {(file, n) for n in range(1, 1 + _last(self.trees[file]))}
        if path[-1] is inner:
            return {(file, n) for n in range(inner.body[0].lineno, inner.end_lineno + 1)}
        return {(file, n) for n in _own_lines(path[-1])}

    def _uses(self, names: set[str]) -> set[tuple[str, int]]:
        """Lines in functions that name any of `names`, or constants made of them."""
        known: set[str] = set()
        lines: set[tuple[str, int]] = set()
        while names - known:
            known |= names
            for file, tree in self.trees.items():
                for node in ast.walk(tree):
                    if (name := _named(node)) in known:
                        path = _enclosing(tree, node.lineno)
                        if any(isinstance(n, ast.FunctionDef) for n in path):
                            lines |= {(file, n) for n in _own_lines(path[-1])}
                        else:
                            names = names | (_bound(path[-1]) if name else set())
        return lines


def _named(node: ast.AST) -> str | None:
    match node:
        case (
            ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name) | ast.keyword(arg=name) | ast.alias(name=name)
        ):
            return name
    return None


def _enclosing(tree: ast.Module, line: int) -> list[ast.stmt]:
    """The statements around a line, from the outermost to the innermost."""
    path, body = [], tree.body
    while body:
        found = [node for node in body if _first(node) <= line <= node.end_lineno]
        if not found:
            break
        path.append(found[0])
        body = [child for child in ast.walk(found[0]) if isinstance(child, ast.stmt) and child is not found[0]]
        body = [child for child in body if _first(child) <= line <= child.end_lineno]
        body = sorted(body, key=lambda child: child.end_lineno - _first(child), reverse=True)[:1]
    return path


def _first(node: ast.stmt) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])


def _own_lines(node: ast.stmt) -> range:
    """The lines of a statement without those of the statements in it."""
    inner = getattr(node, "body", None) or getattr(node, "cases", None)
    end = inner[0].lineno - 1 if isinstance(inner, list) and hasattr(inner[0], "lineno") else node.end_lineno
    return range(node.lineno, max(node.lineno, end) + 1)


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement gives a value to, or the one that it defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    return {n.id for target in targets if target for n in ast.walk(target) if isinstance(n, ast.Name)}


def _last(tree: ast.Module) -> int:
    return tree.body[-1].end_lineno
