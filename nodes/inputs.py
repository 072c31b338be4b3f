"""What several nodes share: their inputs, and the checks on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import Tensor

from ..joyimage.errors import JoyImageError
from ..joyimage.images import from_batch
from ..joyimage.inputs import MAX_REFERENCES
from ..joyimage.settings import Settings
from .host import ENCODER

LAST_IMAGE = f"images.image{MAX_REFERENCES - 1}"


def encoder_input(tooltip: str = "From Load Encoder (JoyImage).", **options) -> io.Input:
    return ENCODER.Input("encoder", tooltip=tooltip, **options)


def images_input(tooltip: str) -> io.Autogrow.Input:
    """`images`: up to six sockets, of which the editor shows one more than is connected."""
    image = io.Image.Input("image", tooltip=tooltip)
    template = io.Autogrow.TemplatePrefix(image, prefix="image", min=0, max=MAX_REFERENCES)
    return io.Autogrow.Input("images", template=template, optional=True, tooltip=tooltip)


def object_input(verb: str) -> io.String.Input:
    return io.String.Input(
        "object",
        default="",
        tooltip=f"What to {verb}, in a few words that tell it from everything else, as in: red cup on the left.",
    )


def setting_input(
    settings: type[Settings], setting: str, tooltip: str, name: str | None = None, default: Any = None, **options
) -> io.Input:
    """A widget for a setting, with the range or the choices that it has everywhere, and the default unless given."""
    name, default = name or setting, getattr(settings, setting) if default is None else default
    if isinstance(default, str):
        choices = list(settings.choices(setting))
        return io.Combo.Input(name, options=choices, default=default, tooltip=tooltip, **options)
    limits = settings.range(setting)
    bounds: dict[str, Any] = {"min": limits.least, "max": limits.most, "step": limits.step} | options
    kind = io.Int if isinstance(default, int) else io.Float
    return kind.Input(name, default=default, tooltip=tooltip, **bounds)


def all_pictures(batches: Iterable[Tensor]) -> list[Image.Image]:
    """The pictures of several IMAGE inputs, one after the other."""
    return [picture for batch in batches for picture in from_batch(batch)]


def check(function: Callable, *values) -> bool | str:
    """For `validate_inputs`: whether `function` takes the values, or what it says against them.

    A value that a link will bring is None there, and is not checked.
    """
    if None in values:
        return True
    try:
        function(*values)
    except JoyImageError as error:
        return str(error)
    return True


class Refusal(str):
    """What `validate_inputs` says against one of its arguments, so that no other field turns red.

    For each argument that the method names and the prompt gives, called `x` there, the host asks whether the verdict
    is an `ExecutionBlocker`, and if not shows it on that argument. So this is a blocker for all arguments but its own,
    which must be among those given. Asked from anywhere else it is a text, which would be shown on all of them.
    """

    argument: str

    def __new__(cls, argument: str, reason: str) -> Refusal:
        refusal = super().__new__(cls, reason)
        refusal.argument = argument
        return refusal

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride] - nobody sets it
        asked = sys._getframe(1).f_locals.get("x")
        return ExecutionBlocker if type(asked) is str and asked != self.argument else Refusal


def blame(argument: str, verdict: bool | str) -> bool | str:
    """For `validate_inputs`: what `check` found, to be shown on one of the method's arguments."""
    return Refusal(argument, verdict) if isinstance(verdict, str) else verdict


def refuse(surplus: Mapping[str, Any], first: str = "images.image0", last: str = LAST_IMAGE) -> None:
    """Raise `JoyImageError` for inputs that a node does not have; graphs made outside the editor may name such."""
    if surplus:
        raise JoyImageError(
            f"no such input: {', '.join(surplus)}. Images are {first} to {last}, {MAX_REFERENCES} at most"
        )
