"""What the library warns of while it makes something, for whoever gets the result."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..errors import one_line
from ..wishes import NearMiss, near_miss


class Noting:
    """What the library warns of while the context lasts, which is to be told beside the result."""

    def __init__(self, shared: bool = False):
        self.shared = shared  # by several that are made together: then nobody knows whose a warning is
        self.caught: list[warnings.WarningMessage] = []
        self._catching = warnings.catch_warnings(record=True)

    def __enter__(self) -> Noting:
        caught = self._catching.__enter__()
        self.caught = [] if caught is None else caught  # the very list, which is empty as yet
        warnings.simplefilter("always")
        return self

    def __exit__(self, *_error: object) -> None:
        self._catching.__exit__(None, None, None)  # which asks for none of them

    def text(self, prompt: str) -> str:
        """In one line, with what is to be said of one of the prompts."""
        package = Path(__file__).parents[1]
        ours = [each.message for each in self.caught if package in Path(each.filename).parents]
        whose = "of this, or of what was made with it: " if self.shared else ""
        notes = [near_miss(prompt), *(f"{whose}{note}" for note in ours if not isinstance(note, NearMiss))]
        return one_line("; ".join(dict.fromkeys(str(note) for note in notes if note)))
