"""What a node says while it runs: text on its face, progress, and the library's warnings."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management
import comfy.utils
from server import PromptServer

PACK = Path(__file__).parent.parent
REFRESH = 0.2  # seconds between two updates of a growing text, each of which sends all of it


def show(node_id: str, text: str) -> None:
    """Show `text` on the node, in both of the frontend's renderers. An empty text changes nothing."""
    PromptServer.instance.send_progress_text(text, node_id)


class Answering:
    """The `on_text` of an answer being written: shows it on the node, moves the progress bar, lets the user stop it."""

    def __init__(self, node_id: str, max_new_tokens: int):
        self._node_id = node_id
        self._bar = comfy.utils.ProgressBar(max_new_tokens, node_id=node_id)
        self._text = ""
        self._shown_at = 0.0

    def __call__(self, piece: str) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update(1)  # a piece is a word of one token or a few: the bar ends early rather than late
        self._text += piece
        if time.monotonic() - self._shown_at > REFRESH:
            show(self._node_id, self._text)
            self._shown_at = time.monotonic()


@contextmanager
def caught_warnings() -> Iterator[list[str]]:
    """Collects what the library warns of, to be shown on the node. Others' warnings take their usual way."""
    texts: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)  # not only the first time
        usual = warnings.showwarning

        def collect(message, category, filename, *rest, **options):
            if PACK in Path(filename).parents:
                texts.append(str(message))
            else:
                usual(message, category, filename, *rest, **options)

        warnings.showwarning = collect
        yield texts
