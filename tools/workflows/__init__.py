"""Makes the graphs in `workflows/` and `subgraphs/`, and their thumbnails: `python -m tools.workflows --help`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "workflows"
SUBGRAPHS = FOLDER.with_name("subgraphs")  # where ComfyUI looks for blueprints


def load(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """A shipped graph by its name."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
