"""Ray casting of scenes, many at a time: exact silhouettes, soft shadows on the ground, four rays a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .scenes import CAR, COLOURS, CONE, CUBE, CYLINDER, FIELD_OF_VIEW, GROUNDS, SIZE, SLOTS, SPHERE, Scenes, axes, boxes

RAYS = 2  # along each side of a pixel
LIGHT = np.array([-0.45, -0.5, 0.74], dtype=np.float32)
AMBIENT = 0.5
SHADOW = 0.42  # how much of the ground's light an object's foot takes
REACH = 0.55  # of a shadow, in units beyond the foot
SKY = np.array([180, 186, 194], dtype=np.float32)
FRONT = np.array([246, 246, 246], dtype=np.float32)  # a car's front part
WINDOW = 0.22  # local x of a car beyond which it is painted so
# Half spaces n . p <= d of the convex solids in their box from -1 to 1.
SIDES = {
    CUBE: [((1, 0, 0), 1), ((-1, 0, 0), 1), ((0, 1, 0), 1), ((0, -1, 0), 1), ((0, 0, 1), 1), ((0, 0, -1), 1)],
}
SIDES[CAR] = [*SIDES[CUBE], ((1.2, 0, 0.78), 1.2 * 0.2 + 0.78)]  # the bonnet slopes down to the front
PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
GROUND_PALETTE = np.array(list(GROUNDS.values()), dtype=np.float32)
NOTHING = 255
HORIZON = 0.05  # of a ray's length along the axis: one that falls by less measures no ground


@dataclass(frozen=True)
class Grid:
    """The rays of a picture: `rays` along each side of a pixel, `size` pixels along each side of the picture."""

    size: int = SIZE
    rays: int = RAYS

    @property
    def side(self) -> int:
        return self.size * self.rays


@dataclass(frozen=True)
class Rendered:
    pixels: np.ndarray  # (N, size, size, 3) uint8
    slots: np.ndarray  # (N, size, size, SLOTS) float32: the share of each pixel that shows each object

    def __getitem__(self, index) -> Rendered:
        return Rendered(self.pixels[index], self.slots[index])

    def box(self, slot: int = 0) -> np.ndarray:
        """Boxes (N, 4) of left, top, right, bottom around what is visible of an object; zeros where it is not."""
        return mask_boxes(self.slots[..., slot] > 0.5)


def mask_boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) around masks (N, H, W): left, top, right, bottom, the last two exclusive; zeros for empty ones."""
    columns, rows = masks.any(axis=1), masks.any(axis=2)  # (N, W), (N, H)
    left, top = columns.argmax(axis=1), rows.argmax(axis=1)
    right = columns.shape[1] - columns[:, ::-1].argmax(axis=1)
    bottom = rows.shape[1] - rows[:, ::-1].argmax(axis=1)
    found = np.stack([left, top, right, bottom], axis=1)
    return np.where(columns.any(axis=1)[:, None], found, 0)


def render(scenes: Scenes, chunk: int = 64, size: int = SIZE) -> Rendered:
    """Pictures of scenes and which object each pixel shows."""
    parts = [_render(scenes[i : i + chunk], Grid(size)) for i in range(0, len(scenes), chunk)]
    return Rendered(np.concatenate([p for p, _ in parts]), np.concatenate([s for _, s in parts]))


def measure(scenes: Scenes, size: int = SIZE, chunk: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """What the middle of each pixel shows: depth along the camera's axis, and the slot of an object.

    Both (N, size, size): depth float32, 0 for the sky; slots uint8, `NOTHING` for ground and sky.
    """
    parts = [_measure(scenes[i : i + chunk], Grid(size, 1)) for i in range(0, len(scenes), chunk)]
    return np.concatenate([d for d, _ in parts]), np.concatenate([w for _, w in parts])


def _measure(scenes: Scenes, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    eye, basis = (a.astype(np.float32) for a in axes(scenes.camera))
    directions = _directions(basis, grid)
    down = directions[..., 2]
    ground = np.where(down < -HORIZON, eye[:, None, 2] / np.maximum(-down, HORIZON), 0)
    depth, which, _ = _cast(scenes, eye, directions, grid, np.zeros_like(directions))
    shape = len(scenes), grid.size, grid.size
    return np.where(which == NOTHING, ground, depth).astype(np.float32).reshape(shape), which.reshape(shape)


def _render(scenes: Scenes, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    eye, basis = (a.astype(np.float32) for a in axes(scenes.camera))
    directions = _directions(basis, grid)
    colour, ground_point = _ground(scenes, eye, directions)
    _, which, colour = _cast(scenes, eye, directions, grid, colour, ground_point)
    pixels = _shrink(colour, grid)
    shares = np.stack(
        [_shrink((which == slot)[..., None].astype(np.float32), grid)[..., 0] for slot in range(SLOTS)], -1
    )
    return np.rint(pixels).clip(0, 255).astype(np.uint8), shares


def _cast(scenes, eye, directions, grid, colour, ground_point=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth (N, R), slots (N, R) and colours (N, R, 3) of what the rays meet; shadows where there is a ground."""
    depth = np.full(directions.shape[:2], np.inf, dtype=np.float32)
    which = np.full(directions.shape[:2], NOTHING, dtype=np.uint8)
    windows = [_window(scenes, slot, grid) for slot in range(SLOTS)]
    if ground_point is not None:
        for slot in range(SLOTS):
            _shade_ground(scenes, slot, windows[slot], ground_point, colour)
    for slot in range(SLOTS):
        _draw_slot(scenes, slot, windows[slot], eye, directions, depth, which, colour)
    return depth, which, colour


def _directions(basis: np.ndarray, grid: Grid) -> np.ndarray:
    """Of the rays of all pixels, row by row, with length 1 along the camera's axis: (N, side * side, 3)."""
    half = np.tan(np.radians(FIELD_OF_VIEW / 2))
    steps = ((np.arange(grid.side, dtype=np.float32) + 0.5) / grid.side * 2 - 1) * half
    y, x = np.meshgrid(-steps, steps, indexing="ij")
    local = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3).astype(np.float32)
    return local @ basis


def _shrink(values: np.ndarray, grid: Grid) -> np.ndarray:
    """Means over the four rays of a pixel: (N, side * side, C) -> (N, size, size, C)."""
    rays = values.reshape(len(values), grid.size, RAYS, grid.size, RAYS, -1)
    return (rays[:, :, 0, :, 0] + rays[:, :, 0, :, 1] + rays[:, :, 1, :, 0] + rays[:, :, 1, :, 1]) / 4


def _ground(scenes: Scenes, eye: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, R, 3) of ground and sky, and the points (N, R, 2) of the ground."""
    down = np.minimum(directions[..., 2], -1e-3)
    t = -eye[:, None, 2] / down
    point = eye[:, None, :2] + t[..., None] * directions[..., :2]
    turn = np.radians(scenes.grain[:, :1]).astype(np.float32)
    phase = scenes.grain[:, 1:].astype(np.float32)
    u = (point[..., 0] * np.cos(turn) + point[..., 1] * np.sin(turn)) / 2.0 + phase
    v = (point[..., 1] * np.cos(turn) - point[..., 0] * np.sin(turn)) / 2.0 + phase
    stripes, checks = np.floor(u) % 2, (np.floor(u) + np.floor(v)) % 2
    texture = scenes.texture[:, None]
    pattern = np.where(texture == 1, checks, np.where(texture == 2, stripes, 0.5)) - 0.5
    shade = (1 + 0.1 * pattern.astype(np.float32))[..., None]
    colour = GROUND_PALETTE[scenes.ground][:, None] * shade
    haze = np.clip((t - 9) / 12, 0, 1)[..., None]
    return colour + (SKY - colour) * haze, point


def _window(scenes: Scenes, slot: int, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rays that may meet a slot's objects or their shadows: index of the scene and of the ray, and its object."""
    index = np.flatnonzero(scenes.present[:, slot])
    found = boxes(scenes[index])[:, slot]
    pad = np.array([-7, -3, 7, 7])
    left, top, right, bottom = np.clip(np.rint((found + pad) * (grid.side / SIZE)), 0, grid.side).astype(int).T
    width, area = right - left, np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    scene = np.repeat(np.arange(len(index)), area)
    within = np.arange(area.sum()) - np.repeat(np.cumsum(area) - area, area)
    row, column = np.divmod(within, np.maximum(width, 1)[scene])
    return index[scene], (row + top[scene]) * grid.side + column + left[scene], scene


def _frame(scenes: Scenes, slot: int, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Per ray: cosine and sine of the object's yaw, its place (…, 2) and half extents (…, 3)."""
    yaw = np.radians(scenes.yaw[:, slot])
    parts = np.cos(yaw), np.sin(yaw), scenes.place[:, slot], scenes.half[:, slot]
    return tuple(part.astype(np.float32)[rows] for part in parts)


def _shade_ground(scenes, slot, window, ground_point, colour) -> None:
    rows, rays, _ = window
    cos, sin, place, half = _frame(scenes, slot, rows)
    offset = ground_point[rows, rays] - place - 0.3 * half[:, 2:] * -LIGHT[:2]
    x, y = np.abs(offset[:, 0] * cos + offset[:, 1] * sin), np.abs(offset[:, 1] * cos - offset[:, 0] * sin)
    kind = scenes.kind[rows, slot]
    round_ = (kind == CYLINDER) | (kind == CONE) | (kind == SPHERE)
    beyond_round = np.hypot(x, y) - half[:, 0]
    beyond_box = np.hypot(np.maximum(x - half[:, 0], 0), np.maximum(y - half[:, 1], 0))
    beyond = np.where(round_, np.maximum(beyond_round, 0), beyond_box)
    shadow = SHADOW * np.clip(1 - beyond / REACH, 0, 1) ** 2
    colour[rows, rays] *= (1 - shadow)[:, None]


def _draw_slot(scenes, slot, window, eye, directions, depth, which, colour) -> None:
    rows, rays, _ = window
    cos, sin, place, half = _frame(scenes, slot, rows)
    origin, direction = eye[rows], directions[rows, rays]
    ox, oy = origin[:, 0] - place[:, 0], origin[:, 1] - place[:, 1]
    o = np.stack([ox * cos + oy * sin, oy * cos - ox * sin, origin[:, 2] - half[:, 2]], axis=1) / half
    d = np.stack(
        [direction[:, 0] * cos + direction[:, 1] * sin, direction[:, 1] * cos - direction[:, 0] * sin, direction[:, 2]],
        axis=1,
    )
    d /= half
    t = np.full(len(rows), np.inf, dtype=np.float32)
    normal = np.zeros_like(o)
    kind = scenes.kind[rows, slot]
    for code, intersect in INTERSECT.items():
        chosen = np.flatnonzero(kind == code)
        if len(chosen):
            t[chosen], normal[chosen] = intersect(o[chosen], d[chosen])
    hit = np.flatnonzero(t < depth[rows, rays])
    rows, rays, t, half = rows[hit], rays[hit], t[hit], half[hit]
    normal, cos, sin = normal[hit] / half, cos[hit], sin[hit]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    world = np.stack(
        [normal[:, 0] * cos - normal[:, 1] * sin, normal[:, 0] * sin + normal[:, 1] * cos, normal[:, 2]], 1
    )
    light = AMBIENT + (1 - AMBIENT) * np.maximum(world @ LIGHT, 0)
    paint = PALETTE[scenes.colour[rows, slot]]
    along = o[hit, 0] + t * d[hit, 0]
    white = (kind[hit] == CAR) & (along > WINDOW)
    paint = np.where(white[:, None], FRONT, paint)
    depth[rows, rays], which[rows, rays] = t, slot
    colour[rows, rays] = paint * light[:, None]


def _polytope(sides):
    normals = np.array([n for n, _ in sides], dtype=np.float32)
    offsets = np.array([d for _, d in sides], dtype=np.float32)

    def intersect(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        enter = np.full(len(o), -np.inf, dtype=np.float32)
        leave = np.full(len(o), np.inf, dtype=np.float32)
        side = np.zeros(len(o), dtype=np.intp)
        for i, (normal, offset) in enumerate(zip(normals, offsets, strict=True)):
            slope = d @ normal
            slope = np.where(np.abs(slope) < 1e-7, np.float32(1e-7), slope)
            t = (offset - o @ normal) / slope
            later = (slope < 0) & (t > enter)
            side[later] = i
            enter = np.where(later, t, enter)
            leave = np.where((slope > 0) & (t < leave), t, leave)
        return np.where(enter < leave, enter, np.inf), normals[side]

    return intersect


def _roots(a, b, c) -> tuple[np.ndarray, np.ndarray]:
    """Of a t^2 + 2 b t + c, inf where there are none."""
    inside = b * b - a * c
    root = np.sqrt(np.maximum(inside, 0))
    a = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
    none = inside < 0
    return np.where(none, np.inf, (-b - root) / a), np.where(none, np.inf, (-b + root) / a)


def _sphere(o, d):
    t, _ = _roots((d * d).sum(1), (o * d).sum(1), (o * o).sum(1) - 1)
    return t, _at(o, d, t)


def _cylinder(o, d):
    t, _ = _roots((d[:, :2] ** 2).sum(1), (o[:, :2] * d[:, :2]).sum(1), (o[:, :2] ** 2).sum(1) - 1)
    point = _at(o, d, t)
    t = np.where(np.abs(point[:, 2]) <= 1, t, np.inf)
    normal = point * np.array([1, 1, 0], dtype=np.float32)
    return _nearer(t, normal, *_disc(o, d, 1.0, 1.0))


def _cone(o, d):
    """Apex at z = 1, foot of radius 1 at z = -1. It is seen from above, so the foot is never seen."""
    up = 1 - o[:, 2]
    a = (d[:, :2] ** 2).sum(1) - d[:, 2] ** 2 / 4
    b = (o[:, :2] * d[:, :2]).sum(1) + up * d[:, 2] / 4
    c = (o[:, :2] ** 2).sum(1) - up**2 / 4
    best = np.full(len(o), np.inf, dtype=np.float32)
    for t in _roots(a, b, c):
        z = o[:, 2] + np.where(np.isfinite(t), t, 0) * d[:, 2]
        best = np.where((np.abs(z) <= 1) & (t < best), t, best)
    point = _at(o, d, best)
    return best, np.concatenate([point[:, :2], (1 - point[:, 2:]) / 4], axis=1)


def _disc(o, d, z, radius):
    t = (z - o[:, 2]) / np.where(np.abs(d[:, 2]) < 1e-7, np.float32(1e-7), d[:, 2])
    point = _at(o, d, t)
    normal = np.zeros_like(o)
    normal[:, 2] = 1
    return np.where((point[:, :2] ** 2).sum(1) <= radius**2, t, np.inf), normal


def _nearer(t, normal, other_t, other_normal):
    first = t <= other_t
    return np.where(first, t, other_t), np.where(first[:, None], normal, other_normal)


def _at(o, d, t):
    return o + np.where(np.isfinite(t), t, 0)[:, None] * d


INTERSECT = {
    CUBE: _polytope(SIDES[CUBE]),
    CYLINDER: _cylinder,
    CONE: _cone,
    SPHERE: _sphere,
    CAR: _polytope(SIDES[CAR]),
}
