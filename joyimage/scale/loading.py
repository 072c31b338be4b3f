"""How a model is loaded in processes that get to know it by message: what `JoyImage.load` is given, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..waiting import LOAD_SECONDS

if TYPE_CHECKING:
    from ..pipeline import JoyImage


PLACES = ("path", "mmdit", "vae", "encoder", "tokenizer")


def absolute(path: str | Path) -> str:
    return str(Path(path).absolute())


@dataclass(frozen=True)
class Loading:
    """A model to be: `options` as `JoyImage.load` takes them, with `dtype` as a word, and LoRAs with their strengths.

    `threads` of the processor; None leaves them to torch, unless the model is small: then its one.
    """

    options: Mapping[str, Any] = field(default_factory=lambda: {"path": "tiny"})
    loras: tuple[tuple[str, float], ...] = ()
    threads: int | None = None

    @property
    def seconds(self) -> int:
        """In which a process must have loaded it."""
        return self.options.get("load_seconds", LOAD_SECONDS)

    def on(self, device: str | None) -> Loading:
        """The same on another device."""
        return Loading({**self.options, "device": device}, self.loras, self.threads)

    def anywhere(self) -> Loading:
        """The same for processes that run in other folders."""
        given = {name: self.options.get(name) for name in PLACES}
        places = {name: absolute(path) for name, path in given.items() if path is not None and str(path) != "tiny"}
        loras = tuple((absolute(path), strength) for path, strength in self.loras)
        return Loading({**self.options, **places}, loras, self.threads)

    def load(self) -> JoyImage:
        """Raises `JoyImageError` as `JoyImage.load` and `set_loras` do."""
        import torch

        from ..pipeline import JoyImage
        from ..precision import WHOLE

        small = str(self.options.get("path")) == "tiny"  # there threads mostly wait for each other
        if threads := self.threads or (1 if small else None):
            torch.set_num_threads(threads)
        dtype = self.options.get("dtype")
        model = JoyImage.load(**{**self.options, "dtype": getattr(torch, dtype) if dtype else None})
        if self.loras:
            model.set_loras(*self.loras)
        if self.threads is None and model.memory.needs.weights < WHOLE:
            torch.set_num_threads(1)
        return model
