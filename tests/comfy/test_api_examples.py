"""The prompts and the client that the docs offer to programs, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from joyimage.demo import asset

DOCS = Path(__file__).parents[2] / "docs" / "comfyui"


def run(client, folder: Path, name: str) -> str:
    asset("move.png").save(client.base / "input" / "photo.png")
    command = [sys.executable, "-S", DOCS / "api" / "client.py", DOCS / "api" / f"{name}.json"]  # -S: no packages
    done = subprocess.run([*command, f"http://{client.address}"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["edit", "move_object"])
def test_pictures_are_saved(client, tmp_path, name):
    run(client, tmp_path, name)
    [made] = tmp_path.glob(f"{name}*.png")
    assert Image.open(made).size == asset("move.png").size


def test_answers_are_printed(client, library, tmp_path):
    question = json.loads((DOCS / "api" / "ask.json").read_text())["ask"]["inputs"]["question"]
    answer = library.ask(asset("move.png"), question, temperature=0)
    assert answer and answer in run(client, tmp_path, "ask")


def test_the_page_shows_the_client_as_it_is():
    code = (DOCS / "api" / "client.py").read_text(encoding="utf-8").split("\n\n", 1)[1].strip()
    assert f"```python\n{code}\n```" in (DOCS / "api.md").read_text(encoding="utf-8")
