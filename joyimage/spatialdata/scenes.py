"""A scene: posed pictures with depth and instance masks, and what stands in it.

Pictures stay on disk until they are asked for, so that a scene of a thousand views is small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import JoyImageError
from ..settings import check_text
from .cameras import Pinhole
from .oriented import OrientedBox
from .pictures import read_depth, read_instances, read_picture, sample

Instances = Path | np.ndarray | Mapping[int, Path]  # a picture of numbers, or a black and white one for each number


def spelt(name: str) -> str:
    """A name with halves of characters, as in that of a file that is no UTF-8, written out: no format has them.

    Raises `JoyImageError` for what is no text.
    """
    if not isinstance(name, str):
        raise JoyImageError(f"a name of scenes and views is text, not {name!r:.60}")
    return name.encode(errors="backslashreplace").decode()


@dataclass(frozen=True, eq=False)
class View:
    """One picture. `camera` is that of the picture; depth and masks may be of another size.

    depth: a file or metres (h, w), 0 where unknown. depth_scale: what a stored number is divided by, None where nothing
    says it, as in `read_depth`. depth_intrinsic: (3, 3) of the depth picture where it shows another part than the
    picture; None if it shows the same. instances: numbers of objects (h, w), 0 for none, on the depth picture's grid
    where both are of one size, else on one that shows the same as the picture.
    """

    name: str
    camera: Pinhole
    image: Path | Image.Image | bytes
    depth: Path | np.ndarray | None = None
    instances: Instances | None = None
    depth_scale: float | None = None
    depth_intrinsic: np.ndarray | None = None
    ignored: Path | None = None  # a mask, black where nothing is to be used

    def __post_init__(self):
        object.__setattr__(self, "name", spelt(self.name))

    @property
    def _file(self) -> str:
        return f" {self.image}" if isinstance(self.image, Path) else ""

    def picture(self) -> Image.Image:
        """In RGB. Raises `JoyImageError` for a file that cannot be read or has another size than the camera's."""
        picture = read_picture(self.image, self.name)
        if picture.size != (self.camera.width, self.camera.height):
            sides = f"{picture.width}x{picture.height} pixels, and its camera {self.camera.width}x{self.camera.height}"
            raise JoyImageError(f"view {self.name}: its picture{self._file} has {sides}")
        return picture

    def sensed(self) -> Sensed:
        """Depth and masks on the depth picture's grid.

        Raises `JoyImageError` for a view without depth, what cannot be read, and depth or masks that show another part
        than the picture, as their shape tells.
        """
        if self.depth is None:
            raise JoyImageError(f"view {self.name} has no depth beside its picture{self._file}; its scene must name it")
        depth = read_depth(self.depth, self.depth_scale, self.name)
        height, width = depth.shape
        if self.depth_intrinsic is not None:
            camera = Pinhole(self.depth_intrinsic, self.camera.pose, width, height)
        else:
            self._check_shape(depth, self.depth, "depth")
            camera = self.camera.resized(width, height)
        if self.ignored is not None:
            used = self._on_grid(read_instances(self.ignored, self.name), camera, self.ignored)
            depth = np.where(used > 0, depth, 0).astype(np.float32)
        instances = None
        if self.instances is not None:
            instances = self._on_grid(read_instances(self.instances, self.name), camera, self.instances)
        return Sensed(camera, depth, instances)

    def _on_grid(self, values: np.ndarray, camera: Pinhole, source: object) -> np.ndarray:
        """Numbers of the picture's part, or of the depth picture's grid already, on that grid."""
        if values.shape == (camera.height, camera.width):
            return values
        self._check_shape(values, source, "masks")
        return sample(values, self.camera.resized(values.shape[1], values.shape[0]), camera)

    def _check_shape(self, values: np.ndarray, source: object, what: str) -> None:
        """Raise `JoyImageError` unless values (h, w) are as wide for their height as the picture, but for rounding."""
        (height, width), camera = values.shape, self.camera
        if abs(width * camera.height - height * camera.width) > max(camera.width, camera.height):
            source = next(iter(source.values()), None) if isinstance(source, Mapping) else source
            shown = f"{what} {source}" if isinstance(source, Path) else what
            raise JoyImageError(
                f"view {self.name}: {shown} of {width}x{height} pixels cannot show what its picture of "
                f"{camera.width}x{camera.height} does: it is of another shape; give the same part, in any resolution"
            )


@dataclass(frozen=True, eq=False)
class Sensed:
    """What was measured in a view: `depth` (h, w) in metres, 0 where unknown, and `instances` (h, w) or None."""

    camera: Pinhole
    depth: np.ndarray
    instances: np.ndarray | None


@dataclass(frozen=True, eq=False)
class SceneObject:
    """What stands in a scene. `number` is its value in the instance masks; `box` is None until it is lifted.

    description: words that tell it from all others of its scene, where there are such. faces: whether the box's first
    axis is where the object's front points. Both texts get into one line. `JoyImageError` for what is no text.
    """

    number: int
    category: str
    description: str = ""
    box: OrientedBox | None = None
    faces: bool = False

    def __post_init__(self):
        for name in ("category", "description"):
            check_text(f"{name} of object {self.number}", text := getattr(self, name))
            object.__setattr__(self, name, " ".join(text.split()))


@dataclass(frozen=True, eq=False)
class Scene:
    """`metric`: whether its lengths are metres. `source`: the data set that it is of.

    state_of: the scene that this one shows after something in it has moved or turned, seen by the same cameras; "" for
    a scene of its own. file: where it was read, as an error names it. `JoyImageError` for two objects of one number.
    """

    name: str
    views: tuple[View, ...]
    objects: tuple[SceneObject, ...] = ()
    metric: bool = False
    source: str = ""
    state_of: str = ""
    file: str = ""

    def __post_init__(self):
        object.__setattr__(self, "name", spelt(self.name))
        numbers = [thing.number for thing in self.objects]
        if len(set(numbers)) < len(numbers):
            raise JoyImageError(f"scene {self.name}: two objects have one number, of {sorted(numbers)}")

    @property
    def lifted(self) -> bool:
        """Whether all objects have boxes."""
        return bool(self.objects) and all(thing.box is not None for thing in self.objects)

    def of(self, category: str) -> Iterator[SceneObject]:
        """The objects of a category."""
        return (thing for thing in self.objects if thing.category == category)

    def with_views(self, most: int) -> Scene:
        """With at most so many of its views, evenly spread."""
        count = len(self.views)
        chosen = (i * count // most for i in range(most)) if count > most else range(count)
        return replace(self, views=tuple(self.views[i] for i in chosen))

    def with_objects(self, objects: tuple[SceneObject, ...]) -> Scene:
        return replace(self, objects=objects)
