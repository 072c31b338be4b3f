"""Where there is no ComfyUI, the last line of `make test` says how many tests that cost, and how to have them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FILES = [f"tests/comfy/{name}" for name in ("test_inputs.py", "test_understanding_nodes.py")]
NEEDS_NO_SERVER = "tests/comfy/test_understanding_nodes.py::test_only_a_server_is_asked_again_for_the_same_prompt"


def run_tests(*words: str, **environment: str) -> str:
    """What pytest prints, with these words and variables."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=outer | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def last_of_make_test(note: Path) -> str:
    """What the last command of `make test` prints."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "test", f"UNRUN={note}"]
    done = subprocess.run(command, cwd=REPOSITORY, env=outer, capture_output=True, text=True, check=True)
    planned = done.stdout.splitlines()
    assert any(re.match(rf"UNRUN={note} \S+/pytest ", line) for line in planned)
    return subprocess.run(planned[-1], shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("both", [[], ["-n", "2", "--dist", "loadfile"]], ids=["one", "xdist"])
def test_tests_without_a_comfyui_are_counted_and_the_remedy_is_named(tmp_path, both):
    collected = run_tests("--collect-only", *FILES)
    count = len(re.findall(r"^tests/comfy/\w+\.py::", collected, re.MULTILINE))
    assert count > len(FILES)
    note = tmp_path / "unrun"
    printed = run_tests(*both, *FILES, COMFYUI_PATH=str(tmp_path / "nowhere"), UNRUN=str(note))
    line = f'{count} NODE TESTS DID NOT RUN: THERE IS NO COMFYUI. Run "make comfyui", then "make test".\n'
    assert line in printed and f"{count} skipped" in printed
    assert last_of_make_test(note) == line


def test_nothing_is_said_when_they_ran(tmp_path, comfyui):
    note = tmp_path / "unrun"
    note.write_text("of an earlier run")
    printed = run_tests(NEEDS_NO_SERVER, UNRUN=str(note))
    assert "1 passed" in printed and "NOT RUN" not in printed
    assert last_of_make_test(note) == ""
