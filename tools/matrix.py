"""`make matrix`: library, command line and bundled model on the least and the newest of what they run on.

    python -m tools.matrix [ROW …]

Each row gets an environment of its own in a temporary folder, with the demo and all tests that need neither a ComfyUI
nor what the row lacks, and is removed before the next: a torch for CUDA takes six gigabytes. What cannot be had here, a
Python or a release, is listed with the reason, and the others go on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
SHOWN = ("torch", "transformers", "Pillow", "numpy", "safetensors")
# What the least row has for tests: Diffusers and comfy-kitchen need more than it has.
TESTS = ("pytest", "pytest-xdist", "hypothesis", "psutil", "gguf", "peft", "accelerate", "PyYAML")
# Neither nodes, nor the example scenes, which take long and tell of the weights.
NOT_TRIED = ("tests/comfy", "tests/model/test_example_scenes.py")
OK, FAILED, NOT_RUN = "passed", "failed", "not run"


@dataclass(frozen=True)
class Row:
    """An environment: `python3.11` for a `python` of "3.11", as PATH has it, and what pip is asked for."""

    python: str
    packages: tuple[str, ...]


ROWS = {
    # 2.4 brought torch.nn.RMSNorm. 4.57 is the first transformers with Qwen3-VL; later ones ask for torch 2.6.
    "least": Row("3.10", (
        "torch==2.4.0", "transformers==4.57.1", "huggingface-hub==0.34.0", "safetensors==0.4.3", "Pillow==10.1.0",
        "numpy==1.23.5", "einops==0.6.0", "tqdm==4.65.0", "--editable", ".", *TESTS,
    )),
    "host": Row("3.12", ("torch==2.7.0", "--editable", ".[test]")),  # the least torch that ComfyUI 0.33 supports
    "developed": Row("3.11", ("torch==2.13.0", "--editable", ".[test]", "--constraint", "constraints.txt")),
    "newest": Row("3.13", ("--upgrade", "--upgrade-strategy", "eager", "torch", "--editable", ".[test]")),
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What came of a row: `OK`, `FAILED` or `NOT_RUN`, with the figures or the reason."""

    outcome: str
    why: str
    versions: dict[str, str]


def main() -> int:
    """0 if all that ran passed, 1 if something failed or nothing could run."""
    parser = argparse.ArgumentParser(prog="python -m tools.matrix", description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)} (all)")
    names = parser.parse_args().rows or list(ROWS)
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}; choose from {', '.join(ROWS)}")
    results = {}
    for name in names:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="joyimage-matrix-") as folder:
            results[name] = run(ROWS[name], Path(folder))
    print("\n".join(table(results)))
    outcomes = {result.outcome for result in results.values()}
    return 0 if OK in outcomes and FAILED not in outcomes else 1


def run(row: Row, folder: Path) -> Result:
    """Make the environment in `folder` and try everything there."""
    python = shutil.which(f"python{row.python}")
    if python is None:
        return Result(NOT_RUN, f"there is no python{row.python} on PATH", {})
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    own = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [own, "-m", "pip", "install", "--quiet", "--no-cache-dir", *row.packages]
    installed = subprocess.run(pip, cwd=ROOT, capture_output=True, text=True)
    if installed.returncode:
        return Result(NOT_RUN, f"pip: {installed.stderr.strip().rpartition(chr(10))[2]}", {})
    versions = {"Python": version(own, "platform.python_version()")}
    versions |= {name: version(own, f"importlib.metadata.version({name!r})") for name in SHOWN}
    demo = subprocess.run([own, "-m", "joyimage", "demo", "-o", folder / "demo", "--quiet"], cwd=ROOT)
    report = folder / "report.xml"
    ignored = [f"--ignore={path}" for path in NOT_TRIED]
    options = ["-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", f"--junitxml={report}", *ignored]
    tests = subprocess.run([own, "-m", "pytest", *options], cwd=ROOT)
    outcome = OK if demo.returncode == tests.returncode == 0 else FAILED
    return Result(outcome, f"demo exits {demo.returncode}, tests: {figures(report)}", versions)


def version(python: Path, expression: str) -> str:
    code = f"import importlib.metadata, platform; print({expression})"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def figures(report: Path) -> str:
    """How many tests passed, failed and were skipped, from pytest's report."""
    if not report.is_file():
        return "none ran"
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    return f"{counts['tests'] - failed - counts['skipped']} passed, {failed} failed, {counts['skipped']} skipped"


def table(results: dict[str, Result]) -> list[str]:
    """A line for each row, for a page: what was installed, and what came of it."""
    names = ("Python", *SHOWN)
    lines = [f"| row | {' | '.join(names)} | result |", "| --- " * (len(names) + 2) + "|"]
    for name, result in results.items():
        shown = " | ".join(result.versions.get(each, "") for each in names)
        lines.append(f"| {name} | {shown} | {result.outcome}: {result.why} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
