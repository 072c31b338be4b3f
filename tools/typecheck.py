"""`python -m tools.typecheck`: basedpyright over what pyproject.toml names, with ComfyUI where there is one.

`nodes/` imports ComfyUI's modules: they are looked for where the node tests look, in $COMFYUI_PATH or ~/comfy/ComfyUI.
Without one stubs stand in for them, whose names have no type. basedpyright takes no such path on its command line.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOST = {"comfy", "comfy_api", "comfy_execution", "comfyui_version", "folder_paths", "latent_preview", "nodes", "server"}
STUB = "from typing import Any\ndef __getattr__(name: str) -> Any: ...\n"


def comfyui() -> Path | None:
    path = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
    return path if (path / "main.py").is_file() else None


def host_modules() -> Iterator[str]:
    """The modules of ComfyUI that the pack imports."""
    for path in (ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            yield from (name for name in names if name.partition(".")[0] in HOST)


def write_stubs(folder: Path) -> None:
    for name in host_modules():
        package = folder
        for part in name.split("."):
            package /= part
            package.mkdir(exist_ok=True)
            (package / "__init__.pyi").write_text(STUB, encoding="utf-8")


def main() -> int:
    host = comfyui()
    print(f"nodes/ is checked against {host}" if host else "nodes/ is checked without ComfyUI: there is none")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if host is None:
            write_stubs(host := folder)
        settings = {"extends": str(ROOT / "pyproject.toml"), "extraPaths": [str(host)]}
        (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "basedpyright", "--project", name, "--pythonpath", sys.executable]
        return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
