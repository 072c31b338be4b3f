"""What a node says while it runs: text on its face, progress, and the library's warnings."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management
import comfy.utils
from comfy.cli_args import LatentPreviewMethod, args
from comfy_execution.progress import get_progress_state
from server import PromptServer

from ..joyimage.encoder import Encoder

PACK = Path(__file__).parent.parent
REFRESH = 0.2  # seconds between two updates of a growing text, each of which sends all of it


def show(node_id: str, text: str) -> None:
    """Show `text` on the node, in both of the frontend's renderers. An empty text changes nothing."""
    PromptServer.instance.send_progress_text(text, node_id)


def told(node_id: str, text: str) -> dict[str, list[str]]:
    """Show `text` while the run goes on, and give it as the node's `ui`, from which the page keeps it afterwards."""
    show(node_id, text)
    return {"text": [text]}


def show_so_far(node_id: str, text: str, images: Sequence[Mapping[str, str]]) -> None:
    """Show the node's `ui` as far as it has come: `text`, and `images`, which are files in the host's folders.

    A picture on the progress bar would stay on the node after the run: in place of those of the `ui` in the classic
    renderer, beside them in Nodes 2.0. So a node with pictures in its `ui` samples `without_previews`.

    It is of no prompt, so that only the node shows it: an app would list it as one more result, and programs that wait
    for the node's results would take it for them.
    """
    display, server = get_progress_state().dynprompt.get_display_node_id(node_id), PromptServer.instance
    server.send_sync(
        "executed",
        {
            "node": node_id,
            "display_node": display,
            "output": {"text": [text], "images": list(images)},
            "prompt_id": None,
        },
        server.client_id,
    )


@contextmanager
def without_previews() -> Iterator[None]:
    """The host's sampling shows no pictures of its own meanwhile, see `show_so_far`."""
    method = args.preview_method
    args.preview_method = LatentPreviewMethod.NoPreviews
    try:
        yield
    finally:
        args.preview_method = method


@contextmanager
def answering(node_id: str, encoder: Encoder, max_new_tokens: int) -> Iterator[Callable[[str], None]]:
    """Gives the `on_text` of an answer, which lets the text grow on the node. Each token moves the progress bar.

    Whether the user has asked to stop is checked before every forward, that is at every token: `on_text` is called
    with whole words only, which in some texts are long in coming.
    """
    bar = comfy.utils.ProgressBar(max_new_tokens, node_id=node_id)
    text, shown_at = "", 0.0

    def on_token() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    def on_text(piece: str) -> None:
        nonlocal text, shown_at
        text += piece
        if time.monotonic() - shown_at > REFRESH:
            show(node_id, text)
            shown_at = time.monotonic()

    with before_forwards(encoder, on_token):
        yield on_text


@contextmanager
def before_forwards(
    encoder: Encoder, call: Callable = comfy.model_management.throw_exception_if_processing_interrupted
) -> Iterator[None]:
    """Calls `call` before every forward of the encoder; by default it looks whether the user has asked to stop."""
    hook = encoder.model.register_forward_pre_hook(lambda *_: call())
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def caught_warnings() -> Iterator[list[str]]:
    """Collects the library's warnings, to be shown on the node. Those of other code take their usual way."""
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
