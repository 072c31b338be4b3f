"""`make comfyui`: which version it fetches, from where, and what it leaves alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import comfyui

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="make is for POSIX systems")
ROOT = Path(__file__).parents[1]
TAG, LATER = "v0.33.0", "0.34.0"
VERSION = '# of the build\n__version__ = "{}"\n'


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--message", "more")


@pytest.fixture
def clone(tmp_path) -> Path:
    """Of a small project with a version file, tagged, and a later version after it."""
    folder = tmp_path / "source"
    folder.mkdir()
    git(folder, "init", "--quiet")
    commit(folder, comfyui_version=VERSION.format(TAG[1:]), main="first", large="much")
    git(folder, "tag", TAG)
    commit(folder, comfyui_version=VERSION.format(LATER), main="second")
    return folder


@pytest.fixture
def snapshot(clone, tmp_path) -> Path:
    """Bare, at the tagged version, without tags and without the contents of a file."""
    git(clone, "checkout", "--quiet", "-B", "main", TAG)
    git(tmp_path, "clone", "--quiet", "--bare", "--no-tags", "--branch=main", str(clone), "bare")
    bare = tmp_path / "bare"
    large = git(bare, "rev-parse", "HEAD:large.py")
    (bare / "objects" / large[:2] / large[2:]).unlink()
    return bare


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.py")}


def test_a_clones_tag_is_taken_and_not_what_is_checked_out(clone, tmp_path):
    path = tmp_path / "comfy" / "ComfyUI"
    assert comfyui.prepare(path, TAG, str(clone)) == []
    assert contents(path) == {"comfyui_version.py": VERSION.format(TAG[1:]), "main.py": "first", "large.py": "much"}
    assert [entry.name for entry in path.parent.iterdir()] == ["ComfyUI"]


def test_a_snapshot_may_lack_tags_and_files_which_are_named(snapshot, tmp_path):
    path = tmp_path / "ComfyUI"
    assert comfyui.prepare(path, TAG, str(snapshot)) == ["large.py"]
    assert contents(path) == {"comfyui_version.py": VERSION.format(TAG[1:]), "main.py": "first"}


def test_half_a_clone_is_begun_anew(clone, tmp_path):
    (tmp_path / "ComfyUI.part").mkdir()
    (tmp_path / "ComfyUI.part" / "main.py").write_text("half")
    comfyui.prepare(tmp_path / "ComfyUI", TAG, str(clone))
    assert (tmp_path / "ComfyUI" / "main.py").read_text() == "first"
    assert not (tmp_path / "ComfyUI.part").exists()


def test_a_source_of_another_version_is_refused_and_leaves_nothing(clone, tmp_path):
    git(clone, "tag", "--delete", TAG)
    with pytest.raises(SystemExit, match=rf"source is ComfyUI {LATER}, and the tests are for {TAG}: name a clone"):
        comfyui.prepare(tmp_path / "ComfyUI", TAG, str(clone))
    assert {entry.name for entry in tmp_path.iterdir()} == {"source"}


def test_a_source_that_is_no_repository_is_named(tmp_path):
    with pytest.raises(SystemExit, match=re.escape(str(tmp_path))):
        comfyui.prepare(tmp_path / "ComfyUI", TAG, str(tmp_path))


def test_what_is_there_keeps_its_changes(clone, tmp_path):
    path = tmp_path / "ComfyUI"
    comfyui.prepare(path, TAG, str(clone))
    (path / "main.py").write_text("mine")
    assert comfyui.prepare(path, TAG, str(clone)) == []
    assert (path / "main.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("files", "what"),
    [({"comfyui_version.py": VERSION.format(LATER)}, f"ComfyUI {LATER}"), ({"a.py": ""}, "no ComfyUI")],
)
def test_another_version_or_project_there_is_left_alone(clone, tmp_path, files, what):
    path = tmp_path / "ComfyUI"
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    with pytest.raises(SystemExit, match=f"ComfyUI is {what}, and the tests are for {TAG}: move it away"):
        comfyui.prepare(path, TAG, str(clone))
    assert contents(path) == files


def test_it_goes_where_the_tests_look(monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert comfyui.place() == tmp_path
    monkeypatch.delenv("COMFYUI_PATH")
    assert comfyui.place() == Path.home() / "comfy" / "ComfyUI"


def test_the_version_is_the_oldest_that_the_pack_takes():
    (pinned,) = re.findall(r"^COMFYUI := v(\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    project, pack = ((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "__init__.py"))
    assert re.findall(r'^requires-comfyui = ">=(.+)"$', project, re.MULTILINE) == [pinned]
    assert re.findall(r'^OLDEST_COMFYUI = "(.+?)"', pack, re.MULTILINE) == [pinned]
