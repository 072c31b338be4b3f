"""Files that are written whole or not at all, by processes that meet in one folder and by some that are killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from joyimage import JoyImageError, atomic
from joyimage.atomic import Part
from joyimage.images import read_parameters, save_png

HOLD = """
import sys, time
from pathlib import Path
from joyimage.atomic import Part
with Part(Path(sys.argv[1])) as part:
    part.path.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)
"""


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


@pytest.fixture
def holding(tmp_path):
    """A process that is writing a file in the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert process.stdout.readline() == b"begun\n"
    yield process
    process.kill()
    process.wait()


def test_what_is_not_published_is_removed(tmp_path):
    with Part(tmp_path) as part:
        part.path.write_bytes(b"half")
    with pytest.raises(RuntimeError), Part(tmp_path) as part:
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_published_file_replaces_or_takes_a_free_name(tmp_path):
    names = [tmp_path / name for name in ("a.bin", "b.bin", "c.bin")]
    for name, replace, content in ((0, True, b"1"), (0, True, b"2"), (1, False, b"3"), (2, False, b"4")):
        with Part(tmp_path) as part:
            part.path.write_bytes(content)
            assert part.publish(names, replace) == names[name]
    assert [name.read_bytes() for name in names] == [b"2", b"3", b"4"]
    with pytest.raises(JoyImageError, match="no name is free"), Part(tmp_path) as part:
        part.publish(names, False)
    assert not parts(tmp_path)


def test_without_hard_links_nothing_is_replaced_either(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    test_a_published_file_replaces_or_takes_a_free_name(tmp_path)


def test_without_locks_files_are_closed_before_they_are_renamed(tmp_path, monkeypatch):
    """As on Windows, which has no flock and renames and removes no open file."""
    monkeypatch.setattr(atomic, "fcntl", None)
    test_a_published_file_replaces_or_takes_a_free_name(tmp_path)
    with Part(tmp_path) as part:
        part.publish([tmp_path / "d.bin"], False)
        assert part._held.closed


@pytest.mark.skipif(atomic.fcntl is None, reason="Windows has no such locks")
def test_on_a_file_system_without_locks_files_are_written_and_none_is_removed(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / ".joyimage-of-somebody.part").write_bytes(b"half")
    monkeypatch.setattr(atomic.fcntl, "flock", unsupported)
    with Part(tmp_path) as part:
        part.publish([tmp_path / "a.bin"], False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".joyimage-of-somebody.part", "a.bin"]


def test_the_part_of_a_living_process_stays(tmp_path, holding):
    atomic.remove_abandoned(tmp_path)
    assert len(parts(tmp_path)) == 1 and holding.poll() is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes in one way only")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_part_of_a_killed_process_is_removed_by_the_next(tmp_path, holding, how):
    holding.send_signal(how)
    holding.wait()
    assert len(parts(tmp_path)) == 1
    save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_pictures_saved_at_once_replace_none(tmp_path):
    names = [tmp_path / f"picture-{i}.png" for i in range(40)]

    def save(i: int) -> Path:
        return save_png(Image.new("RGB", (8, 8)), names[0], {"number": i}, otherwise=names[1:])

    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(save, range(40)))
    assert sorted(saved) == sorted(names)
    assert [read_parameters(path)["number"] for path in saved] == list(range(40))
    assert not parts(tmp_path)
