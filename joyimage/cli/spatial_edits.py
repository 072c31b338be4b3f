"""Edits in space by the options of `joyimage edit`: the sentences that they write, and the boxes that they draw."""

from __future__ import annotations

import re
import shlex
import sys

from .. import spatial
from ..boxes import PixelBox
from ..errors import JoyImageError, one_line
from ..places import read_place
from ..settings import check_text


def spatial_inputs(options, kind: str, pictures: list) -> tuple[list[str], list]:
    """The instruction that --move, --rotate or --camera writes, and the pictures, with the box drawn where it is known.

    Raises `JoyImageError` for what cannot be used.
    """
    if kind == "move":
        if (options.box is None) == (options.to is None) or len(pictures) != 1:
            raise JoyImageError(
                "--move takes one picture, and --box LEFT,TOP,RIGHT,BOTTOM in its pixels or --to with a place in words"
            )
        sentence = spatial.move_object(options.move)
        if options.to is not None:
            check_text("the place", options.to)
            read_place(options.to)
            return [sentence], pictures
        return [sentence], [spatial.draw_box(pictures[0], options.box)]
    if kind == "rotate":
        return [spatial.rotate_object(options.rotate, options.view or "")], pictures
    parts = [part.strip() for part in options.camera.split(",")]
    if len(parts) > 3:
        raise JoyImageError(f"--camera takes YAW,PITCH,ZOOM, not {options.camera!r}")
    yaw, pitch, zoom = parts + ["0", "0", "unchanged"][len(parts) :]
    return [spatial.camera(_number(yaw), _number(pitch), zoom)], pictures


def spatial_options(instruction: spatial.Instruction) -> str:
    """The options of `edit` that write an instruction, as they are typed in a shell."""
    if isinstance(instruction, spatial.Move):
        return f"--move {_typed(instruction.object)} --box LEFT,TOP,RIGHT,BOTTOM"
    if isinstance(instruction, spatial.Rotate):
        return f"--rotate {_typed(instruction.object)} --view {_typed(instruction.view)}"
    # the sign of equality, as a value that begins with a minus would be taken for an option
    return f"--camera={instruction.yaw:.10g},{instruction.pitch:.10g},{instruction.zoom}"


def _typed(text: str) -> str:
    """A word in double quotes, which shells on Windows take as well, where nothing in it has a meaning to a shell."""
    return shlex.quote(text) if re.search(r'["$`\\!%]', text) else f'"{text}"'


def found_box(options, model, picture) -> PixelBox:
    """The box for --move at the place that --to names in words. Says where it is, to be corrected."""
    box = model.place(picture, options.move, options.to)
    words = one_line(options.to.strip())
    print(f"joyimage: note: {words} is --box {','.join(map(str, box))}", file=sys.stderr)
    return box


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise JoyImageError(f"{text!r} is not a number of degrees") from None
