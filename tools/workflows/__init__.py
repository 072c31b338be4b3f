"""Makes the graphs in `workflows/` and their thumbnails: `python -m tools.workflows --help`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "workflows"


def load(name: str) -> dict[str, Any]:
    """A shipped graph by its name."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
