"""Spatial data: posed pictures with depth and masks, the geometry of what stands in them, and questions about it.

World: z up, the ground is XY, metres where the scene is metric. Camera: x right, y down, z forward; depth is z, and 0
where nothing was measured. A pixel's middle is at half numbers: that of the first is (0.5, 0.5). Install
`joyimage[data]`: hulls and neighbours are SciPy's, Parquet is PyArrow's.
"""

from .tasks import TASKS as TASKS
