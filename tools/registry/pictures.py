"""The pack's icon and banner: solids of the bundled model's world, the red box, and the three edits in space."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image, ImageDraw, ImageFont

from joyimage import spatial

from .solids import FINER, Camera, Solid, box, draw

NAME, LINES = "JoyImage", ("Move, rotate, re-shoot:", "spatial editing for ComfyUI")
SAND, NIGHT, WHITE, DIM = (222, 212, 192), (22, 26, 38), (250, 250, 252), (176, 184, 204)
SIZE = 1680, 720  # of the banner: 21 to 9, as the registry asks
SIDE, GAP, MARGIN = 288, 12, 48  # of its pictures, between before and after, and around everything
COLUMN = SIDE + 2 * GAP
CORNER, BADGE = 14, 26  # radii of the pictures' corners, and of the arrows' discs


def icon(side: int = 400) -> Image.Image:
    """A cube on its way into the red box; few and large shapes, so that it reads at 64 pixels."""
    camera = Camera(elevation=36, distance=6, side=side)
    cube = Solid("cube", "blue", (0.34, -0.34), yaw=28, size=0.8)
    trail = replace(cube, place=(-1.8, 2.05), opacity=0.25), replace(cube, place=(-0.82, 0.92), opacity=0.45)
    picture = draw((*trail, cube), camera, SAND)
    return spatial.draw_box(picture, box(cube, camera, padding=side // 18), width=side // 45)


def banner() -> Image.Image:
    """The name and what it is for, beside three pictures before and after an edit."""
    picture = Image.new("RGB", SIZE, NIGHT)
    pen = ImageDraw.Draw(picture)
    _put(picture, icon().resize((152, 152), Image.Resampling.LANCZOS), (MARGIN + 16, 122))
    pen.text((MARGIN + 10, 410), NAME, WHITE, ImageFont.load_default(128), anchor="ls", stroke_width=2)
    for row, line in enumerate(LINES):
        pen.text((MARGIN + 16, 500 + 58 * row), line, DIM, ImageFont.load_default(42), anchor="ls")
    left = SIZE[0] - MARGIN - 3 * COLUMN + 2 * GAP
    for column, (word, edit) in enumerate(EDITS.items()):
        _column(picture, left + column * COLUMN, word, *edit())
    return picture


def _column(picture: Image.Image, left: int, word: str, before: Image.Image, after: Image.Image) -> None:
    pen, middle = ImageDraw.Draw(picture), left + SIDE // 2
    top = SIZE[1] - MARGIN - 2 * SIDE - GAP
    pen.text((middle, top - 16), word, WHITE, ImageFont.load_default(30), anchor="ms")
    _put(picture, before, (left, top))
    _put(picture, after, (left, top + SIDE + GAP))
    _arrow(picture, middle, top + SIDE + GAP // 2)


def _put(picture: Image.Image, part: Image.Image, place: tuple[int, int]) -> None:
    """Paste with round corners, which are drawn finer and reduced since Pillow's own are jagged."""
    mask = Image.new("L", (part.width * FINER, part.height * FINER))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), CORNER * FINER, fill=255)
    picture.paste(part, place, mask.reduce(FINER))


def _arrow(picture: Image.Image, x: int, y: int) -> None:
    """A disc with an arrow down, where before and after meet."""
    side = 2 * BADGE * FINER
    disc, arrow = Image.new("L", (side, side)), Image.new("L", (side, side))
    ImageDraw.Draw(disc).ellipse((0, 0, side - 1, side - 1), fill=255)
    pen, half = ImageDraw.Draw(arrow), side // 2
    pen.line((half, side * 0.24, half, side * 0.6), fill=255, width=side // 10)
    pen.polygon([(half, side * 0.78), (side * 0.3, side * 0.52), (side * 0.7, side * 0.52)], fill=255)
    for colour, mask in ((NIGHT, disc), (WHITE, arrow)):
        picture.paste(colour, (x - BADGE, y - BADGE), mask.reduce(FINER))


def _moved() -> tuple[Image.Image, Image.Image]:
    camera = Camera(side=SIDE)
    moved = Solid("cylinder", "pink", (-1.0, -0.6), size=0.78)
    placed, cone = replace(moved, place=(1.15, 0.75)), Solid("cone", "green", (-0.9, 1.7), size=0.78)
    before = draw((moved, cone), camera, SAND)
    return spatial.draw_box(before, box(placed, camera, padding=8), width=5), draw((placed, cone), camera, SAND)


def _rotated() -> tuple[Image.Image, Image.Image]:
    camera = Camera(side=SIDE)
    car, sphere = Solid("car", "purple", (-0.2, -0.35), yaw=-115), Solid("sphere", "orange", (1.3, 1.75), size=0.66)
    return draw((car, sphere), camera, SAND), draw((replace(car, yaw=0), sphere), camera, SAND)


def _reshot() -> tuple[Image.Image, Image.Image]:
    solids = (
        Solid("cube", "blue", (-0.75, 0.9), yaw=10, size=0.84),
        Solid("cone", "red", (0.95, 0.5), size=0.84),
        Solid("sphere", "yellow", (-0.1, -1.1), size=0.6),
    )
    return draw(solids, Camera(side=SIDE), SAND), draw(solids, Camera(-45, 24, 7.2, SIDE), SAND)


EDITS = {"Move": _moved, "Rotate": _rotated, "Camera": _reshot}
