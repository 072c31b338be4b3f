"""The bundled model's world drawn large: solids as polygons, since `tools.tiny.render` casts its rays for 64 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tools.tiny.render import AMBIENT, FRONT, LIGHT, SHADOW, SKY
from tools.tiny.scenes import COLOURS, FIELD_OF_VIEW, KINDS, PROPORTIONS, axes

FINER = 3  # pixels that are drawn along each side of one, for smooth edges
ROUND = 96  # facets around a round solid, too fine to be seen
TILE, REACH = 1.5, 18  # of the ground, in the world's units
CONTRAST = 0.07  # of the tiles
BLUR = 0.012  # of a shadow's edge, as a share of the picture's side
PAINTED = 0.2  # local x of a car up to which it has its colour

Colour = tuple[int, int, int]
Outline = list[tuple[float, float]]
Facet = list[tuple[float, float, float]]


@dataclass(frozen=True)
class Solid:
    """One solid on the ground; `opacity` below 1 shows where it has been."""

    kind: str
    colour: str
    place: tuple[float, float]
    yaw: float = 0.0  # degrees, anticlockwise from above
    size: float = 0.9
    opacity: float = 1.0


@dataclass(frozen=True)
class Camera:
    """Where a picture is taken from: azimuth and elevation in degrees, distance from the middle, pixels of a side."""

    azimuth: float = 0.0
    elevation: float = 34.0
    distance: float = 6.4
    side: int = 400

    @property
    def frame(self) -> tuple[np.ndarray, np.ndarray]:
        """The eye (3,), and the directions right, up and forward as rows (3, 3)."""
        eye, basis = axes(np.array([[self.azimuth, self.elevation, self.distance]]))
        return eye[0], basis[0]

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (P, 3) to x, y and depth (P, 3), x and y in the finer pixels."""
        eye, basis = self.frame
        x, y, depth = ((points - eye) @ basis.T).T
        middle = self.side * FINER / 2
        focal = middle / np.tan(np.radians(FIELD_OF_VIEW / 2))
        return np.stack([middle + focal * x / depth, middle - focal * y / depth, depth], axis=1)


def draw(solids: tuple[Solid, ...], camera: Camera, ground: Colour) -> Image.Image:
    """A picture of the solids on a checkered ground that fades with distance.

    Solids stand apart, so it is enough to paint the nearer after the farther, and all shadows before all solids.
    """
    picture = _ground(ground, camera)
    for solid in solids:
        picture = _shaded(picture, solid, camera)
    eye, _ = camera.frame
    for solid in sorted(solids, key=lambda solid: -np.hypot(*(eye[:2] - solid.place))):
        picture.paste(*_painted(solid, camera))
    return picture.reduce(FINER)


def box(solid: Solid, camera: Camera, padding: int = 0) -> tuple[int, int, int, int]:
    """Left, top, right, bottom around what a picture shows of a solid, in its pixels."""
    points = np.concatenate([camera.project(points)[:, :2] for points, _, _ in _facets(solid)]) / FINER
    left, top = np.floor(points.min(axis=0)).astype(int) - padding
    right, bottom = np.ceil(points.max(axis=0)).astype(int) + padding
    return int(left), int(top), int(right), int(bottom)


def _ground(colour: Colour, camera: Camera) -> Image.Image:
    side = camera.side * FINER
    picture = Image.new("RGB", (side, side), colour)
    pen = ImageDraw.Draw(picture)
    steps = np.arange(-REACH, REACH) * TILE
    for i, x in enumerate(steps):
        for j, y in enumerate(steps):
            corners = np.array([[x, y, 0], [x + TILE, y, 0], [x + TILE, y + TILE, 0], [x, y + TILE, 0]])
            seen = camera.project(_turned(corners, 30))
            if seen[:, 2].min() > 0.5:
                shade = 1 + CONTRAST * (1 if (i + j) % 2 else -1)
                pen.polygon([*map(tuple, seen[:, :2])], fill=_rgb(np.array(colour) * shade))
    picture.paste(_rgb(SKY), mask=_haze(camera))
    return picture


def _haze(camera: Camera) -> Image.Image:
    """How much of each row is the sky's colour: nothing near by, more with the ground's distance."""
    side = camera.side * FINER
    eye, basis = camera.frame
    up = (1 - (np.arange(side) + 0.5) / side * 2) * np.tan(np.radians(FIELD_OF_VIEW / 2))
    down = np.maximum(-(basis[2, 2] + up * basis[1, 2]), 1e-3)
    share = np.clip((eye[2] / down - 9) / 12, 0, 1)
    return Image.fromarray(np.rint(share * 255).astype(np.uint8)[:, None]).resize((side, side))


def _shaded(picture: Image.Image, solid: Solid, camera: Camera) -> Image.Image:
    """The picture with the solid's shadow: its facets thrown along the light onto the ground."""
    mask = Image.new("L", picture.size)
    pen = ImageDraw.Draw(mask)
    for points, _, _ in _facets(solid):
        thrown = points - LIGHT * (points[:, 2:] / LIGHT[2])
        pen.polygon([*map(tuple, camera.project(thrown)[:, :2])], fill=round(255 * SHADOW * solid.opacity))
    soft = mask.filter(ImageFilter.GaussianBlur(BLUR * picture.width))
    return ImageChops.multiply(picture, ImageChops.invert(soft).convert("RGB"))


def _painted(solid: Solid, camera: Camera) -> tuple[Image.Image, tuple[int, int], Image.Image]:
    """What `Image.paste` takes to put a solid into a picture: its colours, where, and its mask."""
    colours = Image.new("RGB", (camera.side * FINER,) * 2)
    mask = Image.new("L", colours.size)
    eye, _ = camera.frame
    for points, normal, colour in _facets(solid):
        if normal @ (eye - points[0]) > 0:  # a convex solid hides nothing of its own front
            outline = [*map(tuple, camera.project(points)[:, :2])]
            light = AMBIENT + (1 - AMBIENT) * max(normal @ LIGHT, 0)
            ImageDraw.Draw(colours).polygon(outline, fill=_rgb(np.array(colour) * light))
            ImageDraw.Draw(mask).polygon(outline, fill=round(255 * solid.opacity))
    return colours, (0, 0), mask


def _facets(solid: Solid) -> list[tuple[np.ndarray, np.ndarray, Colour]]:
    """Corners (P, 3) of each facet in the world, its normal outwards, and its colour before light."""
    half = PROPORTIONS[KINDS.index(solid.kind)] * solid.size
    middle = np.array([*solid.place, half[2]])
    found = []
    for corners, front in SHAPES[solid.kind]:
        points = _turned(np.array(corners, dtype=float) * half, solid.yaw) + middle
        normal = np.cross(points[1] - points[0], points[2] - points[0])
        normal *= np.sign(normal @ (points.mean(axis=0) - middle)) / np.linalg.norm(normal)
        found.append((points, normal, tuple(FRONT) if front else COLOURS[solid.colour]))
    return found


def _turned(points: np.ndarray, yaw: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    return points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def _rgb(colour: np.ndarray) -> Colour:
    return tuple(np.rint(colour).clip(0, 255).astype(int).tolist())


def _ring(z: float, radius: float = 1.0) -> Facet:
    angles = np.arange(ROUND + 1) * 2 * np.pi / ROUND
    return [(radius * np.cos(a), radius * np.sin(a), z) for a in angles]


def _between(lower: Facet, upper: Facet) -> list[Facet]:
    """The four-cornered facets between two rings."""
    return [[lower[i], lower[i + 1], upper[i + 1], upper[i]] for i in range(ROUND)]


def _sides(outline: Outline) -> list[Facet]:
    """The two ends of what an outline in x and z makes when it is drawn along y."""
    return [[(x, y, z) for x, z in outline] for y in (-1, 1)]


def _edges(outline: Outline) -> list[Facet]:
    """And what each edge of the outline makes."""
    pairs = zip(outline, [*outline[1:], outline[0]], strict=True)
    return [[(a, -1, b), (c, -1, d), (c, 1, d), (a, 1, b)] for (a, b), (c, d) in pairs]


def _sphere() -> list[Facet]:
    angles = np.linspace(-np.pi / 2 + 0.02, np.pi / 2 - 0.02, ROUND // 2)
    rings = [_ring(np.sin(a), np.cos(a)) for a in angles]
    return [facet for low, high in pairwise(rings) for facet in _between(low, high)] + [rings[-1]]


def _car() -> list[tuple[Facet, bool]]:
    back, front = [(-1, -1), (PAINTED, -1), (PAINTED, 1), (-1, 1)], [(PAINTED, -1), (1, -1), (1, -0.23), (PAINTED, 1)]
    edges = _edges([*back[:2], *front[1:], back[3]])
    painted = [*_sides(back), *(edge for edge in edges if min(edge)[0] < PAINTED)]
    white = [*_sides(front), *(edge for edge in edges if min(edge)[0] >= PAINTED)]
    return [*_all(painted), *((facet, True) for facet in white)]


def _all(facets: list[Facet]) -> list[tuple[Facet, bool]]:
    return [(facet, False) for facet in facets]


CUBE = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
FOOT = _ring(-1)
# Facets in the box from -1 to 1, and whether each is a car's white front; as `tools.tiny.render` has the solids.
SHAPES = {
    "cube": _all([*_sides(CUBE), *_edges(CUBE)]),
    "cylinder": _all([*_between(FOOT, _ring(1)), _ring(1)]),
    "cone": _all([[a, b, (0, 0, 1)] for a, b in pairwise(FOOT)]),
    "sphere": _all(_sphere()),
    "car": _car(),
}
