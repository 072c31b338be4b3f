"""`python -m tools.workflows`: writes workflows/*.json and subgraphs/*.json, and with --thumbnails their pictures.

It asks a running ComfyUI with this pack what the nodes look like; the pictures are made by the bundled model, here.
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any

from . import FOLDER, SUBGRAPHS
from .apps import APPS, appear
from .blueprints import BLUEPRINTS, wrap
from .build import build
from .loop import WORKFLOWS as WORK
from .try_it import WORKFLOWS as TRY_IT


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.workflows", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of ComfyUI (%(default)s)")
    parser.add_argument("--thumbnails", action="store_true", help="make the pictures as well")
    options = parser.parse_args()
    with urllib.request.urlopen(f"{options.server}/object_info") as reply:
        object_info = json.load(reply)
    for workflow in (*TRY_IT, *WORK):
        write(FOLDER, workflow.name, build(workflow, object_info))
    for app in APPS:
        write(FOLDER, app.graph.name, appear(app, object_info))
    for blueprint in BLUEPRINTS:
        write(SUBGRAPHS, blueprint.name, wrap(blueprint, object_info))
    if options.thumbnails:
        from .thumbnails import save  # here: the files alone need no model

        save([*(workflow.name for workflow in (*TRY_IT, *WORK)), *(app.graph.name for app in APPS)], FOLDER)


if __name__ == "__main__":
    main()
