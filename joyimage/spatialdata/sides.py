"""Which side of a thing with a front a camera sees, in the model's words for views."""

from __future__ import annotations

import math

from . import margins
from .cameras import Pinhole
from .oriented import OrientedBox

# Clockwise from above, as a camera goes around the object.
SIDES = ("front", "front right", "right", "rear right", "rear", "rear left", "left", "front left")


def shown_side(box: OrientedBox, camera: Pinhole) -> int | None:
    """Which of `SIDES` of a box, whose first axis is ahead, a camera sees.

    None near the edge between two sides, and for a box that does not stand.
    """
    if not box.stands:
        return None
    x, y, _ = (camera.centre - box.centre).tolist()
    degrees = math.degrees(box.heading - math.atan2(y, x))  # clockwise from the front
    step = round(degrees / 45)
    return step % 8 if 22.5 - abs(degrees - 45 * step) >= margins.DIRECTION else None
