"""What is trained on, before anything is read: a picture to learn, the words for it, and the pictures it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from .pictures import Picture, describe


@dataclass(frozen=True)
class Example:
    """One edit to learn, or one picture from text. Pictures are paths, members of tars, or Pillow images."""

    target: Picture  # the picture to learn
    caption: str
    controls: tuple[Picture, ...] = ()  # 0 (text to image) to 6 pictures that are edited, in order
    mask: Picture | None = None  # white where the loss counts

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The target, then the controls."""
        return (self.target, *self.controls)

    def __str__(self) -> str:
        return describe(self.target)
