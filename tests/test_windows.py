"""What is otherwise on Windows and Macs, as far as it can be played on any system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest
import torch
from PIL import Image

from joyimage import JoyImage, JoyImageError, atomic, tiny
from joyimage.atomic import Part, check_name, replace_file, windows_refuses
from joyimage.checkpoints import convert
from joyimage.cli import main
from joyimage.cli.options import build_parser
from joyimage.images import save_png
from joyimage.sampling import schedule, start

ROOT = Path(__file__).parents[1]
SIGNS = "→ ✓ 雪"
# Runs some commands one after the other in one process.
COMMANDS = """
import json, sys
from joyimage.cli import main
sys.exit(max(map(main, json.loads(sys.argv[1]))))
"""
# Modules that Windows lacks cannot be imported by us, and os has not all that it has elsewhere. What others import
# stays as it is here: they have ways of their own for Windows.
WITHOUT_POSIX = """
import os, sys
import filelock, torch, transformers.models.qwen3_vl.modeling_qwen3_vl
sys.modules.update(dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios"), None))
for name in ("sysconf", "fork", "getuid", "geteuid", "mkfifo"):
    delattr(os, name)
from joyimage import atomic
assert atomic.fcntl is None
"""


@pytest.fixture
def windows(monkeypatch):
    """No locks, and no waiting before a file is tried again."""
    monkeypatch.setattr(atomic, "fcntl", None)
    monkeypatch.setattr(atomic, "PAUSES", (0.0, 0.0))


def run(*command, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, env=env, cwd=ROOT)


# -- files ------------------------------------------------------------------------------------------------------------


def refused(*_):
    raise PermissionError(13, "Access is denied")


def in_use(monkeypatch, times: int) -> None:
    """Let files be replaced after so many refusals, as Windows refuses while somebody has the file open or mapped."""
    replace, left = os.replace, iter(range(times))

    def replaced(*paths) -> None:
        if next(left, None) is not None:
            refused()
        replace(*paths)

    monkeypatch.setattr(os, "replace", replaced)


def test_a_file_that_a_scanner_looks_at_is_replaced_a_moment_later(tmp_path, windows, monkeypatch):
    in_use(monkeypatch, times=2)
    (tmp_path / "a.png").write_bytes(b"old")
    save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", {})
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_in_use_stays_and_is_named(tmp_path, windows, monkeypatch):
    in_use(monkeypatch, times=1000)
    picture, weights = tmp_path / "a.png", tmp_path / "a.safetensors"
    for path in (picture, weights):
        path.write_bytes(b"old")
    with pytest.raises(JoyImageError, match=r"a\.png: cannot be replaced \(Access is denied\): .*another program"):
        save_png(Image.new("RGB", (8, 8)), picture, {})
    with pytest.raises(JoyImageError, match=r"a\.safetensors: cannot be replaced"):
        convert(tiny.FILES["vae"], weights)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == {picture: b"old", weights: b"old"}


def test_elsewhere_a_refusal_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "PAUSES", (1000.0,))
    if atomic.fcntl is None:
        pytest.skip("Windows tries again")
    in_use(monkeypatch, times=1)
    with pytest.raises(JoyImageError, match="cannot be replaced"):
        replace_file(tmp_path / "a", tmp_path / "b")


def test_without_links_and_in_use_no_empty_file_is_left(tmp_path, windows, monkeypatch):
    monkeypatch.setattr(os, "link", refused)
    in_use(monkeypatch, times=1000)
    with pytest.raises(JoyImageError, match="cannot be replaced"), Part(tmp_path) as part:
        part.publish([tmp_path / "a.png"], replace=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["con.png", "NUL", "aux.tar.gz", r"C:\out\prn", "LPT1.png", "com¹.png", "a.", "b ", r"out.\a.png", "what?.png",
     "a*.png", "ab:c.png", "x|y", '"a".png', "con/a.png", "tab\t.png"],
)  # fmt: skip
def test_names_that_windows_refuses_are_known(name, windows):
    assert windows_refuses(PureWindowsPath(name))
    with pytest.raises(JoyImageError, match="give another name"):
        check_name(PureWindowsPath(name))  # pyright: ignore[reportArgumentType] - no Windows path can be made elsewhere


@pytest.mark.parametrize(
    "name",
    ["a.png", r"C:\out\a.png", r"C:\Users\Ä 雪\bild-1.png", r"..\out\.joyimage\a b.png", ".", r"\\server\share\a.png",
     "console.png", "nully", "com10.png", "C:a.png", r"\\?\C:\a.png"],
)  # fmt: skip
def test_ordinary_names_are_not_refused(name):
    assert windows_refuses(PureWindowsPath(name)) is None


def test_a_name_that_cannot_be_is_refused_before_any_work(tmp_path, windows, monkeypatch, capsys):
    monkeypatch.setattr(JoyImage, "load", refused)
    assert main(["generate", "a cube", "-o", str(tmp_path / "nul.png")]) == 2
    assert "nul.png: Windows has no files or folders named nul.png" in capsys.readouterr().err
    with pytest.raises(JoyImageError, match=r"aux\.safetensors"):
        convert(tiny.FILES["vae"], tmp_path / "aux.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text, expected",
    [
        (r"C:\loras\x.safetensors:0.8", (r"C:\loras\x.safetensors", 0.8)),
        (r"C:\loras\x.safetensors", (r"C:\loras\x.safetensors", 1.0)),
        (r"D:x.safetensors:-1", ("D:x.safetensors", -1.0)),
        (r"\\server\loras\x.safetensors:1e-1", (r"\\server\loras\x.safetensors", 0.1)),
        (r"C:\0.5", (r"C:\0.5", 1.0)),
    ],
)
def test_a_drives_colon_is_no_strength(text, expected):
    assert build_parser().parse_args(["generate", "x", "--lora", text]).lora == [expected]


def test_inspect_finds_what_a_shell_left_as_a_pattern(tmp_path, capsys):
    for name in ("a.png", "b[1].png"):
        save_png(Image.new("RGB", (8, 8)), tmp_path / name, {"prompt": name})
    assert main(["inspect", str(tmp_path / "*.png"), str(tmp_path / "b[1].png")]) == 0
    assert capsys.readouterr().out.count("a picture made with") == 3
    assert main(["inspect", str(tmp_path / "*.gguf")]) == 2
    assert "*.gguf: no such file" in capsys.readouterr().err


# -- processes --------------------------------------------------------------------------------------------------------


def edit_and_convert(folder: Path) -> str:
    """Commands that read and write files of every kind, for `COMMANDS`."""
    picture = save_png(Image.new("RGB", (64, 64), "teal"), folder / "a.png", {})
    commands = (
        ["edit", picture, "Remove it.", "--steps", "1", "--quiet", "-o", folder / "b.png"],
        ["convert", tiny.FILES["vae"], folder / "out", "--layout", "diffusers", "--quiet"],
        ["inspect", folder / "out"],
    )
    return json.dumps([[*map(str, command)] for command in commands])


@pytest.mark.slow
def test_edits_and_conversions_run_without_what_windows_lacks(tmp_path):
    done = run("-c", WITHOUT_POSIX + COMMANDS, edit_and_convert(tmp_path))
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "b.png").size == (64, 64)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_no_text_is_read_or_written_in_the_systems_encoding(tmp_path):
    """Python names every file that is opened in one which differs from system to system."""
    watched = ["-X", "warn_default_encoding", "-W", "always::EncodingWarning"]
    done = run(*watched, "-c", COMMANDS, edit_and_convert(tmp_path))
    assert done.returncode == 0 and b"'encoding'" not in done.stderr, done.stderr


# In a console Windows has UTF-8, in a pipe or file its code page.
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_what_the_outputs_encoding_lacks_is_escaped(tmp_path, environment):
    picture = save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", {"prompt": SIGNS})
    done = run("-m", "joyimage", "inspect", picture, **environment)
    assert done.returncode == 0, done.stderr
    assert rb"prompt: \u2192 \u2713 \u96ea" in done.stdout
    done = run("-m", "joyimage", "inspect", tmp_path / "none.png", f"{SIGNS}.png", **environment)
    assert done.returncode == 2 and b"joyimage: error: " in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", [[], ["edit"], ["generate"], ["ask"], ["convert"], ["download"], ["plan"]])
def test_help_is_shown_in_any_encoding(command):
    done = run("-m", "joyimage", *command, "--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.startswith(b"usage: joyimage"), done.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are Unicode there")
def test_bytes_of_a_name_are_written_as_they_are(tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"a\xff.png")
    Path(os.fsdecode(name)).write_bytes(save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", {}).read_bytes())
    for encoding in ("utf-8", "cp1252"):
        done = run("-m", "joyimage", "inspect", os.fsdecode(name), PYTHONIOENCODING=encoding)
        assert done.returncode == 0 and name in done.stdout, done.stderr


# -- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["nul", "cuda:77", "mps", "xpu"])
def test_a_device_that_is_not_there_is_refused_before_any_work(device, monkeypatch):
    kind = device.partition(":")[0]
    if (kind == "mps" and torch.backends.mps.is_available()) or (kind == "xpu" and torch.xpu.is_available()):
        pytest.skip("it is there")
    monkeypatch.setattr(tiny, "build", refused)
    with pytest.raises(JoyImageError, match=r"device|GPU"):
        JoyImage.load("tiny", device=device)


def test_sigmas_are_brought_to_the_processor_before_they_are_doubles():
    """Metal has no float64. A tensor that refuses to become one elsewhere stands for one of its."""

    class Metal(torch.Tensor):
        def cpu(self, *_):
            return self.as_subclass(torch.Tensor)

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            assert func.__name__ in ("cpu", "as_subclass", "__get__"), f"{func.__name__} before it is on the processor"
            return super().__torch_function__(func, types, args, kwargs or {})

    noise = torch.zeros(1, 16, 1, 8, 8)
    sigmas = schedule(4)
    assert torch.equal(start(noise, sigmas.as_subclass(Metal))[1], sigmas)
