"""Fetches the ComfyUI that the tests of nodes run in and installs what it needs: `make comfyui`.

It comes to $COMFYUI_PATH or ~/comfy/ComfyUI, where tests/comfy/conftest.py looks for it, with its packages in `.venv`
inside. What is there already is never changed: another version stops it. Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ADDRESS = "https://github.com/Comfy-Org/ComfyUI"
VERSION_FILE = "comfyui_version.py"
PACK = Path(__file__).parents[1]


def place() -> Path:
    return Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser().absolute()


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"git {' '.join(words)}, in {folder}: {done.stderr.strip()}")
    return done.stdout


def check_version(text: str, where: object, tag: str, remedy: str) -> None:
    """Stops unless `text`, which a ComfyUI has as its VERSION_FILE, is of the version that a tag names."""
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None or found[1] != tag.removeprefix("v"):
        what = f"ComfyUI {found[1]}" if found else "no ComfyUI"
        sys.exit(f"{where} is {what}, and the tests are for {tag}: {remedy}")


def fetch(path: Path, tag: str, source: str | None) -> list[str]:
    """Puts ComfyUI in a folder that is not there yet, from a local clone or bare repository if one is given. Returns
    the files that the source does not hold: snapshots may lack the largest."""
    revision, words = "HEAD", ["--depth=1", f"--branch={tag}", ADDRESS]
    if source is not None:
        origin = Path(source).expanduser().absolute()
        revision, words = tag if git(origin, "tag", "--list", tag) else "HEAD", [str(origin)]
        remedy = f"name a clone that has the tag {tag}, or one of that version"
        check_version(git(origin, "show", f"{revision}:{VERSION_FILE}"), origin, tag, remedy)
    part = path.with_name(f"{path.name}.part")  # so that half a clone is never taken for a whole one
    shutil.rmtree(part, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    git(path.parent, "clone", "--no-checkout", *words, part.name)
    git(part, "checkout", "--detach", revision)  # goes on past files that are not there, and succeeds
    part.rename(path)
    return git(path, "ls-files", "--deleted").splitlines()


def prepare(path: Path, tag: str, source: str | None = None) -> list[str]:
    """Sees to it that a folder holds ComfyUI of a version. Returns the files that the source does not hold."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return fetch(path, tag, source)
    version = path / VERSION_FILE
    text = version.read_text(encoding="utf-8") if version.is_file() else ""
    check_version(text, path, tag, "move it away, or set COMFYUI_PATH to another folder")
    return []


def install(path: Path, torch: list[str]) -> None:
    """Makes ComfyUI's own environment, or brings it up to what the requirements say."""
    python = path / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        run([sys.executable, "-m", "venv", str(path / ".venv")])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    requirements = ["-r", str(path / "requirements.txt"), "-r", str(PACK / "requirements.txt")]
    for what in filter(None, (torch, requirements)):
        print(f"installing {' '.join(what)}", flush=True)
        run([*pip, *what])


def run(command: list[str]) -> None:
    if subprocess.run(command).returncode:
        sys.exit(f"this failed, for what stands above: {' '.join(command)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag", help="the version, as ComfyUI tags it: v0.33.0")
    parser.add_argument("torch", nargs="*", help="packages to install before ComfyUI's requirements")
    parser.add_argument("--source", help="a local clone or bare repository to take in place of GitHub's")
    options = parser.parse_args(arguments)
    path = place()
    missing = prepare(path, options.tag, options.source)
    install(path, options.torch)
    print(f"ComfyUI {options.tag.removeprefix('v')} is in {path}: `make test` runs the tests of nodes there")
    if missing:
        print(f"without {len(missing)} files that {options.source} does not hold: {', '.join(missing)}")


if __name__ == "__main__":
    main()
