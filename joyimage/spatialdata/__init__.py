"""Spatial data: posed pictures with depth and masks, the geometry of what stands in them, and questions about it.

World: z up, the ground is XY, metres where the scene is metric. Camera: x right, y down, z forward; depth is z, and 0
where nothing was measured. A pixel's middle is at half numbers: that of the first is (0.5, 0.5). Install
`joyimage[data]`: hulls and neighbours are SciPy's, Parquet is PyArrow's.

`make(scenes, out, settings)` makes a data set, `inspect(out)` says what is in one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .settings import Making as Making

if TYPE_CHECKING:
    from .inspecting import inspect as inspect
    from .making import make as make
    from .tasks import TASKS as TASKS

__all__ = ["TASKS", "Making", "inspect", "make"]


def __getattr__(name: str):
    """Load what waits for numpy when it is first named: commands check their options without it."""
    if name == "TASKS":
        from .tasks import TASKS

        return TASKS
    if name == "make":
        from .making import make

        return make
    if name == "inspect":
        from .inspecting import inspect

        return inspect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
