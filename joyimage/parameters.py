"""What a picture tells of how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import __version__
from .settings import AUTO, CANDIDATES, EXACT, Shortcuts

if TYPE_CHECKING:
    from PIL.Image import Image

# How networks compute by default, which is not told; with LoRAs, where there are some, it is all that is told of them.
NETWORKS: dict[str, Any] = {"dtype": None, "theta": None, "products": EXACT, "attention": AUTO}
LORAS = "loras"
UNTOLD = {"count", "batch_size", "candidates", "draft_steps", *Shortcuts.names()}


def made_by(
    picture: Image,
    parameters: Mapping[str, Any],
    *,
    prompt: str,
    images: Sequence[str],
    seed: int,
    model: str,
    networks: Mapping[str, Any],
) -> dict[str, Any]:
    """All that makes the picture again, as `images.save_png` takes it.

    `parameters` are the options of `JoyImage.edit`, `networks` how the networks computed where that is not the default.
    Of the shortcuts those are told that were taken, by a preset or without; of candidates the chosen one's seed.
    """
    taken = Shortcuts(**{name: parameters[name] for name in Shortcuts.names()})
    preset = {} if taken.preset == Shortcuts.preset else {"preset": taken.preset}
    chosen = picture.info.get(CANDIDATES)
    return {
        **{name: value for name, value in parameters.items() if name not in UNTOLD},
        **preset,
        **taken.shortcuts,
        "prompt": prompt,
        "images": list(images),
        "seed": chosen["chosen"] if chosen else seed,
        "size": [picture.height, picture.width],
        "model": model,
        "version": __version__,
        **networks,
        **({CANDIDATES: chosen["candidates"]} if chosen else {}),
    }
