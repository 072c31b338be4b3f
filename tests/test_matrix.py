"""The versions that are tried: what pyproject.toml promises is the least row, and CI runs every row."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tools import matrix

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
LEAST = {
    requirement.name.lower(): requirement
    for requirement in (Requirement(each) for each in matrix.ROWS["least"].packages if each[0] not in "-.")
}


def dependencies() -> list[Requirement]:
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", PROJECT, re.MULTILINE | re.DOTALL)
    return [Requirement(each) for each in re.findall(r'^    "(.+?)"', block, re.MULTILINE)]


def test_the_least_row_has_the_least_that_is_promised():
    (python,) = re.findall(r'^requires-python = ">=(.+)"$', PROJECT, re.MULTILINE)
    assert matrix.ROWS["least"].python == python
    bounds = {each.name.lower(): each.specifier for each in dependencies()}
    assert {"torch", "transformers", "pillow"} <= {name for name, specifier in bounds.items() if specifier}
    for name, specifier in bounds.items():
        for bound in specifier:
            assert bound.operator == ">=", "a pin would take a ComfyUI's own release away"
            (own,) = LEAST[name].specifier
            assert own.operator == "==" and own.version.startswith(f"{bound.version}.")


def test_all_pythons_are_tried():
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert sorted(row.python for row in matrix.ROWS.values()) == sorted(named)


def test_the_developed_row_is_what_make_test_has():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (torch,) = re.findall(r"^TORCH \?= (.+)$", makefile, re.MULTILINE)
    assert torch in matrix.ROWS["developed"].packages


def test_continuous_integration_runs_every_row():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))["jobs"]
    job = jobs["versions"]
    assert job["strategy"]["matrix"]["row"] == list(matrix.ROWS)
    (setup,) = (step["with"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert set(setup["python-version"].split()) == {row.python for row in matrix.ROWS.values()}
    assert job["steps"][-1] == {"run": "make matrix PYTHON=python", "env": {"ROWS": "${{ matrix.row }}"}}


def test_what_cannot_be_had_is_said(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["matrix", "least", "newest"])
    assert matrix.main() == 1
    shown = capsys.readouterr().out
    assert "| least |  |  |  |  |  |  | not run: there is no python3.10 on PATH |" in shown
    assert "not run: there is no python3.13 on PATH" in shown


def test_figures_come_from_pytests_report(tmp_path):
    assert matrix.figures(tmp_path / "none.xml") == "none ran"
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>')
    assert matrix.figures(report) == "3 passed, 3 failed, 3 skipped"


def test_an_unknown_row_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["matrix", "oldest"])
    with pytest.raises(SystemExit):
        matrix.main()
    assert "there is no row 'oldest'; choose from least, host" in capsys.readouterr().err
