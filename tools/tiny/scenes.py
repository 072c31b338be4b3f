"""Scenes of one to four solids on a ground, as arrays: what the renderer draws, and what tasks and judges know.

World axes: x to the right and y away from the camera of an unturned view, z up; the ground is z = 0. Lengths are in
units of which about 13 pixels make one, angles in degrees. An object is a solid in an oriented box: it stands on the
ground, turned about z by its yaw. Slot 0 of a scene is the object that a task is about.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from joyimage.spatial import VIEWS

SIZE = 64  # pixels of a picture's side
SLOTS = 4
KINDS = ("cube", "cylinder", "cone", "sphere", "car")
CUBE, CYLINDER, CONE, SPHERE, CAR = range(len(KINDS))
COLOURS = {
    "red": (214, 38, 38),
    "orange": (240, 134, 28),
    "yellow": (238, 216, 40),
    "green": (46, 168, 62),
    "cyan": (46, 196, 204),
    "blue": (44, 82, 214),
    "purple": (136, 56, 190),
    "pink": (240, 100, 180),
}
COLOUR_NAMES = tuple(COLOURS)
GROUNDS = {
    "gray": (150, 150, 152),
    "beige": (184, 174, 154),
    "sage": (142, 156, 138),
    "slate": (112, 122, 134),
    "brown": (138, 122, 108),
}
GROUND_NAMES = tuple(GROUNDS)
TEXTURES = ("plain", "checkered", "striped")

# Angle from "towards the camera" to "where the front points", counted anticlockwise from above, for each view.
# Whoever sees the right side of a car sees it drive to the right.
VIEW_ANGLES = {
    "front": 0, "front right": 45, "right": 90, "rear right": 135,
    "rear": 180, "rear left": -135, "left": -90, "front left": -45,
}  # fmt: skip

FIELD_OF_VIEW = 38.0
DISTANCE = 7.0
ZOOM = {"in": 0.78, "unchanged": 1.0, "out": 1.28}  # factors of the distance
LOOK_AT = np.array([0.0, 0.0, 0.35])
PROPORTIONS = np.array(  # half extents of each kind for size 1
    [[0.84, 0.84, 0.84], [0.8, 0.8, 0.95], [0.95, 0.95, 1.05], [0.95, 0.95, 0.95], [1.3, 0.76, 0.7]]
)
SMALLEST, LARGEST = 0.66, 0.96
CROWDED = np.array([1.0, 0.92, 0.8, 0.72])  # factors of the sizes where one, two, three or four objects have to fit
NUMBERS = np.array([0.2, 0.35, 0.25, 0.2])  # shares of scenes with so many objects
APART = 1.02  # of the sum of two objects' radii, the least distance between their middles
TRIES = 6  # places that are tried for an object until it stands apart from those before it
MARGIN = 2  # pixels of the picture's border that objects keep free


@dataclass(frozen=True)
class Scenes:
    """N scenes: arrays (N, SLOTS, …) of objects, (N, …) of grounds and cameras."""

    present: np.ndarray  # bool
    kind: np.ndarray  # index into KINDS
    colour: np.ndarray  # index into COLOUR_NAMES
    place: np.ndarray  # (…, 2) x and y of the middle
    size: np.ndarray  # 1 is about 1.6 units wide
    yaw: np.ndarray  # degrees, anticlockwise from above; a car's front points along x at 0
    ground: np.ndarray  # index into GROUND_NAMES
    texture: np.ndarray  # index into TEXTURES
    grain: np.ndarray  # (N, 2) the texture's turn in degrees and its phase
    camera: np.ndarray  # (N, 3) azimuth and elevation in degrees, distance

    def __len__(self) -> int:
        return len(self.present)

    @property
    def count(self) -> np.ndarray:
        """How many objects each has, (N,)."""
        return self.present.sum(axis=1)

    def __getitem__(self, index) -> Scenes:
        return Scenes(**{name: value[index] for name, value in vars(self).items()})

    @property
    def half(self) -> np.ndarray:
        """Half extents of the oriented boxes, (N, SLOTS, 3)."""
        return PROPORTIONS[self.kind] * self.size[..., None]

    @property
    def radius(self) -> np.ndarray:
        """Of the circle around an object's footprint, (N, SLOTS)."""
        half = self.half
        corner = np.hypot(half[..., 0], half[..., 1])
        round_ = (self.kind == CYLINDER) | (self.kind == CONE) | (self.kind == SPHERE)
        return np.where(round_, half[..., 0], corner)

    def name(self, index: int, slot: int = 0) -> str:
        """As instructions call it: "red cube"."""
        return f"{COLOUR_NAMES[self.colour[index, slot]]} {KINDS[self.kind[index, slot]]}"

    def with_slot(self, slot: int = 0, **values) -> Scenes:
        """The same scenes with some fields of one slot replaced."""
        fields = {}
        for name, value in values.items():
            fields[name] = getattr(self, name).copy()
            fields[name][:, slot] = value
        return replace(self, **fields)

    def starting_with(self, slot: int) -> Scenes:
        """The same scenes with the objects renumbered, so that the one of `slot` comes first."""
        order = [slot, *(other for other in range(SLOTS) if other != slot)]
        objects = ("present", "kind", "colour", "place", "size", "yaw")
        return replace(self, **{name: getattr(self, name)[:, order] for name in objects})


def concatenate(parts: list[Scenes]) -> Scenes:
    return Scenes(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def held_out(colour: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Whether a combination of colour and kind is kept from training: 8 of 40, each kind in one or two colours."""
    return (np.asarray(colour) + 3 * np.asarray(kind)) % 5 == 0


def held_out_view(colour: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Whether turning a car of this colour to this view is kept from training: 1 in 8."""
    return (np.asarray(colour) + 3 * np.asarray(view)) % len(VIEWS) == 1


def held_out_camera(yaw: np.ndarray, pitch: np.ndarray, zoom: np.ndarray) -> np.ndarray:
    """Whether a move of the camera is kept from training: 1 in 5 of steps of 15 degrees and kinds of zoom."""
    steps = np.round(np.asarray(yaw) / 15).astype(int) + 2 * np.round(np.asarray(pitch) / 15).astype(int)
    return (steps + 2 * np.asarray(zoom)) % 5 == 3


def axes(camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eyes (N, 3), and the cameras' right, up and forward directions as rows, (N, 3, 3)."""
    azimuth, elevation = np.radians(camera[:, 0]), np.radians(camera[:, 1])
    back = np.stack(
        [np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth), np.sin(elevation)], axis=1
    )
    right = np.stack([np.cos(azimuth), np.sin(azimuth), np.zeros_like(azimuth)], axis=1)
    up = np.cross(back, right)
    return LOOK_AT + back * camera[:, 2:], np.stack([right, up, -back], axis=1)


def project(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """World points (N, P, 3) -> pixels (N, P, 2), x to the right and y down, and depth as a third number."""
    eye, basis = axes(camera)
    local = np.einsum("npk,nak->npa", points - eye[:, None], basis)  # (N, P, right up forward)
    focal = SIZE / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2))
    depth = np.maximum(local[..., 2], 1e-3)
    x = SIZE / 2 + focal * local[..., 0] / depth
    y = SIZE / 2 - focal * local[..., 1] / depth
    return np.stack([x, y, depth], axis=-1)


def corners(scenes: Scenes, slot: int) -> np.ndarray:
    """The corners of the objects' oriented boxes, (N, 8, 3)."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (0, 2)], dtype=float)
    local = scenes.half[:, slot, None] * signs  # (N, 8, 3), standing on the ground
    yaw = np.radians(scenes.yaw[:, slot])[:, None]
    x = local[..., 0] * np.cos(yaw) - local[..., 1] * np.sin(yaw) + scenes.place[:, slot, :1]
    y = local[..., 0] * np.sin(yaw) + local[..., 1] * np.cos(yaw) + scenes.place[:, slot, 1:]
    return np.stack([x, y, local[..., 2]], axis=-1)


def boxes(scenes: Scenes) -> np.ndarray:
    """Boxes around the projected corners, (N, SLOTS, 4): left, top, right, bottom. A little larger than the object."""
    found = np.zeros((len(scenes), SLOTS, 4))
    for slot in range(SLOTS):
        points = project(corners(scenes, slot), scenes.camera)[..., :2]
        found[:, slot] = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=-1)
    return found


def middle(scenes: Scenes, slot: int) -> np.ndarray:
    """The objects' middles in the picture and their depth, (N, 3)."""
    centre = np.concatenate([scenes.place[:, slot], scenes.half[:, slot, 2:]], axis=-1)
    return project(centre[:, None], scenes.camera)[:, 0]


def valid(scenes: Scenes) -> np.ndarray:
    """Whether all objects stand apart, lie inside the picture, hide little of each other and differ in colour, (N,)."""
    found, radius = boxes(scenes), scenes.radius
    inside = (found[..., :2] >= MARGIN).all(-1) & (found[..., 2:] <= SIZE - MARGIN).all(-1)
    good = (inside | ~scenes.present).all(axis=1)
    area = np.prod(found[..., 2:] - found[..., :2], axis=-1)
    for i in range(SLOTS):
        for j in range(i):
            both = scenes.present[:, i] & scenes.present[:, j]
            gap = np.linalg.norm(scenes.place[:, i] - scenes.place[:, j], axis=-1)
            shared = np.prod(
                np.maximum(
                    np.minimum(found[:, i, 2:], found[:, j, 2:]) - np.maximum(found[:, i, :2], found[:, j, :2]), 0
                ),
                axis=-1,
            )
            apart = gap > APART * (radius[:, i] + radius[:, j])
            good &= ~both | (scenes.colour[:, i] != scenes.colour[:, j])
            good &= ~both | (apart & (shared < 0.2 * np.minimum(area[:, i], area[:, j])))
    return good


def draw(
    count: int,
    generator: np.random.Generator,
    *,
    test: bool = False,
    kind: int | None = None,
    numbers: np.ndarray = NUMBERS,
) -> Scenes:
    """Random valid scenes. In tests the object of slot 0 is of a held-out combination, else none is.

    The objects of a scene have different colours. `kind` is that of slot 0. Numbers of objects come in the shares
    `numbers`, though the more there are the fewer arrangements are valid.
    """
    done: list[Scenes] = []
    missing = quotas(count, numbers)
    while missing.any():
        scenes = _draw_any(missing, generator, test, kind)
        chosen = within(missing, scenes, valid(scenes))
        done.append(scenes[chosen])
        missing = missing - np.bincount(scenes.count[chosen], minlength=SLOTS + 1)[1:]
    scenes = concatenate(done)
    return scenes[generator.permutation(count)]


def quotas(count: int, shares: np.ndarray = NUMBERS) -> np.ndarray:
    """How many of `count` scenes have one, two, three and four objects."""
    ends = np.round(np.cumsum(shares / shares.sum()) * count).astype(int)
    return np.diff(ends, prepend=0)


def within(missing: np.ndarray, scenes: Scenes, good: np.ndarray) -> np.ndarray:
    """The indices of the first good scenes of each number of objects, as many as are missing of it."""
    found = [np.flatnonzero(good & (scenes.count == n))[:some] for n, some in enumerate(missing, start=1)]
    return np.sort(np.concatenate(found))


def _draw_any(missing: np.ndarray, generator: np.random.Generator, test: bool, kind: int | None) -> Scenes:
    """Some scenes for each number of objects of which `missing` says that there are too few; not all are valid."""
    number = np.repeat(np.arange(1, SLOTS + 1), np.where(missing > 0, np.maximum(32, 4 * missing), 0))
    count = len(number)
    combinations = np.array([(c, k) for c in range(len(COLOURS)) for k in range(len(KINDS))])
    kept = held_out(combinations[:, 0], combinations[:, 1])
    seen, unseen = combinations[~kept], combinations[kept]
    picks = seen[generator.integers(len(seen), size=(count, SLOTS))]  # (N, SLOTS, 2)
    if test:
        picks[:, 0] = unseen[generator.integers(len(unseen), size=count)]
    if kind is not None:
        colours = [c for c in range(len(COLOURS)) if held_out(c, kind) == test]
        picks[:, 0] = np.stack([generator.choice(colours, size=count), np.full(count, kind)], axis=1)
    for i in range(1, SLOTS):  # colours that differ
        for _ in range(TRIES):
            again = (picks[:, :i, 0] == picks[:, i : i + 1, 0]).any(axis=1)
            picks[again, i] = seen[generator.integers(len(seen), size=again.sum())]
    size = generator.uniform(SMALLEST, LARGEST, (count, SLOTS)) * CROWDED[number - 1, None]
    scenes = Scenes(
        present=np.arange(SLOTS) < number[:, None],
        kind=picks[..., 1],
        colour=picks[..., 0],
        place=places(generator, (count, SLOTS)),
        size=size,
        yaw=generator.uniform(-180, 180, (count, SLOTS)),
        ground=generator.integers(len(GROUNDS), size=count),
        texture=generator.choice(len(TEXTURES), p=[0.6, 0.2, 0.2], size=count),
        grain=np.stack([generator.uniform(0, 90, count), generator.uniform(0, 1, count)], axis=1),
        camera=np.stack([np.zeros(count), generator.uniform(28, 48, count), np.full(count, DISTANCE)], axis=1),
    )
    return spread(scenes, generator)


def places(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Places on the ground that are mostly in the picture, (*shape, 2)."""
    return np.stack([generator.uniform(-1.8, 1.8, shape), generator.uniform(-1.6, 1.9, shape)], axis=-1)


def spread(scenes: Scenes, generator: np.random.Generator) -> Scenes:
    """Scenes in which objects that stood in others have been given other places, some times each."""
    place, radius = scenes.place.copy(), scenes.radius
    for i in range(1, SLOTS):
        for _ in range(TRIES):
            gaps = np.linalg.norm(place[:, :i] - place[:, i : i + 1], axis=-1)
            again = (gaps < APART * (radius[:, :i] + radius[:, i : i + 1])).any(axis=1)
            place[again, i] = places(generator, (again.sum(),))
    return replace(scenes, place=place)


def view_yaw(scenes: Scenes, view: np.ndarray) -> np.ndarray:
    """The yaw at which the object of slot 0 shows `view` (indices into VIEWS) to the camera, (N,)."""
    eye, _ = axes(scenes.camera)
    towards = np.degrees(np.arctan2(eye[:, 1] - scenes.place[:, 0, 1], eye[:, 0] - scenes.place[:, 0, 0]))
    return towards + np.array([VIEW_ANGLES[name] for name in VIEWS])[view]


def shown_view(scenes: Scenes, slot: int = 0) -> np.ndarray:
    """Which of VIEWS is nearest to what the camera sees of an object, (N,), and how far off it is in degrees, (N,)."""
    eye, _ = axes(scenes.camera)
    offset = eye[:, :2] - scenes.place[:, slot]
    angle = scenes.yaw[:, slot] - np.degrees(np.arctan2(offset[:, 1], offset[:, 0]))
    differences = angle[:, None] - np.array([VIEW_ANGLES[name] for name in VIEWS])
    differences = np.abs((differences + 180) % 360 - 180)
    return differences.argmin(axis=1), differences.min(axis=1)


def moved_camera(camera: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, zoom: np.ndarray) -> np.ndarray:
    """Cameras (N, 3) after a camera instruction: positive yaw goes around to the right, positive pitch up.

    `zoom` are indices into ZOOM's keys.
    """
    factors = np.array(list(ZOOM.values()))[zoom]
    return np.stack([camera[:, 0] + yaw, camera[:, 1] + pitch, camera[:, 2] * factors], axis=1)
