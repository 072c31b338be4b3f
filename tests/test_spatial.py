"""The spatial sentences to the letter, the red box to the pixel, and parsing them back."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from joyimage import JoyImageError, spatial

MOVE = "Move the red cup into the red box and finally remove the red box."
ROTATE = "Rotate the car to show the rear left side view."
CAMERA = (
    "Move the camera.\n"
    "- Camera rotation: Yaw -90°, Pitch 20°.\n"
    "- Camera zoom: unchanged.\n"
    "- Keep the 3D scene static; only change the viewpoint."
)

objects = st.text(min_size=1).filter(lambda text: len(text.strip().splitlines()) == 1)
degrees = st.floats(-1e6, 1e6)


def test_sentences_are_the_published_ones():
    assert spatial.move_object("red cup") == MOVE
    assert spatial.rotate_object("car", "rear left") == ROTATE
    assert spatial.camera(-90, 20, "unchanged") == CAMERA
    assert spatial.camera(-90, 20) == CAMERA


def test_objects_are_stripped_and_otherwise_literal():
    assert spatial.move_object("  {view} °\t") == "Move the {view} ° into the red box and finally remove the red box."


@pytest.mark.parametrize("view", spatial.VIEWS)
def test_every_view(view):
    assert spatial.rotate_object("chair", view) == f"Rotate the chair to show the {view} side view."


@pytest.mark.parametrize("zoom", spatial.ZOOMS)
def test_every_zoom(zoom):
    assert f"\n- Camera zoom: {zoom}.\n" in spatial.camera(0, 0, zoom)


@pytest.mark.parametrize(
    ("yaw", "written"),
    [
        (45, "45"),
        (45.0, "45"),
        (np.float32(45.5), "45.5"),
        (45.50, "45.5"),
        (100, "100"),
        (0.1 + 0.2, "0.3"),
        (-0.0, "0"),
        (1e-7, "0"),
        (-1e-7, "0"),
        (180, "180"),
        (-180, "180"),
        (-180.00000001, "180"),
        (540, "180"),
        (270, "-90"),
        (-270, "90"),
        (359.9, "-0.1"),
        (360, "0"),
        (179.9999, "179.9999"),
        (1e9 + 0.5, "-79.5"),
    ],
)
def test_yaw_is_normalised_and_short(yaw, written):
    assert f"Yaw {written}°, Pitch" in spatial.camera(yaw)


@pytest.mark.parametrize(("pitch", "written"), [(90, "90"), (91, "90"), (-1e9, "-90"), (-12.25, "-12.25"), (-0.0, "0")])
def test_pitch_is_limited(pitch, written):
    assert f", Pitch {written}°.\n" in spatial.camera(0, pitch)


@given(degrees, degrees)
def test_camera_stays_in_range(yaw, pitch):
    camera = spatial.Camera(yaw, pitch)
    assert -180 < camera.yaw <= 180
    assert -90 <= camera.pitch <= 90
    assert abs(math.remainder(camera.yaw - yaw, 360)) <= 1e-4


@pytest.mark.parametrize("bad", ["", "  \n", "two\nlines", "two\u2028lines", None, 3])
@pytest.mark.parametrize("build", [spatial.move_object, lambda obj: spatial.rotate_object(obj, "front")])
def test_bad_objects(build, bad):
    with pytest.raises(JoyImageError, match="the object must be described"):
        build(bad)


@pytest.mark.parametrize("view", ["behind", "Front", "", None, "front-right"])
def test_bad_view_names_the_allowed(view):
    with pytest.raises(JoyImageError, match=r"unknown view.*front, right, left, rear, front right, .*rear left"):
        spatial.rotate_object("chair", view)


@pytest.mark.parametrize("zoom", ["In", "closer", "", None])
def test_bad_zoom_names_the_allowed(zoom):
    with pytest.raises(JoyImageError, match=r"unknown zoom.*in, out, unchanged"):
        spatial.camera(0, 0, zoom)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "45", None, True, 1j])
def test_bad_degrees(value):
    with pytest.raises(JoyImageError, match="yaw must be a finite number of degrees"):
        spatial.camera(value)
    with pytest.raises(JoyImageError, match="pitch must be a finite number of degrees"):
        spatial.camera(0, value)


def yaws(instructions: list[str]) -> list[float]:
    return [spatial.parse(text).instruction.yaw for text in instructions]


@pytest.mark.parametrize(
    ("start", "end", "count", "expected"),
    [
        (0, 360, 4, [0, 90, 180, -90]),
        (0, -360, 4, [0, -90, 180, 90]),
        (-180, 180, 3, [180, -60, 60]),
        (0.1, 360.1, 2, [0.1, -179.9]),
        (-90, 90, 3, [-90, 0, 90]),
        (0, 90, 2, [0, 90]),
        (-1, 359, 2, [-1, 179]),
        (0, 359, 2, [0, -1]),
        (0, 359.9996, 2, [0, -0.0004]),
        (30, 60, 1, [30]),
        (0, 0, 1, [0]),
        (0, 360, 1, [0]),
    ],
)
def test_orbit_is_even_and_never_repeats_its_start(start, end, count, expected):
    assert yaws(spatial.orbit(start, end, count)) == expected


def test_orbit_passes_pitch_and_zoom_on():
    assert spatial.orbit(-90, 0, 2, pitch=20)[0] == CAMERA
    assert all("zoom: out." in text for text in spatial.orbit(0, 90, 3, zoom="out"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 90, 0), "1 or more"),
        ((0, 90, 2.5), "1 or more"),
        ((0, 400, 3), "by 400"),
        ((0, 360.0004, 3), "by 360"),
        ((0, -361, 3), "by -361"),
        ((5, 5, 2), "full turn is 0 to 360"),
    ],
)
def test_bad_orbits(arguments, message):
    with pytest.raises(JoyImageError, match=message):
        spatial.orbit(*arguments)


@given(objects)
@pytest.mark.slow
def test_move_round_trip(obj):
    instruction = spatial.Move(obj)
    assert spatial.parse(spatial.move_object(obj)) == spatial.Parsed(instruction)
    assert instruction.text == spatial.move_object(obj)


@given(objects, st.sampled_from(spatial.VIEWS))
def test_rotate_round_trip(obj, view):
    assert spatial.parse(spatial.rotate_object(obj, view)) == spatial.Parsed(spatial.Rotate(obj, view))


@given(degrees, degrees, st.sampled_from(spatial.ZOOMS))
def test_camera_round_trip(yaw, pitch, zoom):
    assert spatial.parse(spatial.camera(yaw, pitch, zoom)) == spatial.Parsed(spatial.Camera(yaw, pitch, zoom))


def test_objects_that_sound_like_the_template_survive():
    for obj in (
        "a into the red box and finally remove the red box. Move the b",
        "camera",
        "x to show the front side view",
    ):
        assert spatial.parse(spatial.move_object(obj)).instruction == spatial.Move(obj)
        assert spatial.parse(spatial.rotate_object(obj, "rear")).instruction == spatial.Rotate(obj, "rear")


def test_kinds_and_surrounding_space():
    kinds = [spatial.parse(f" {text}\n").instruction.kind for text in (MOVE, ROTATE, CAMERA)]
    assert kinds == ["move", "rotate", "camera"]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("Move the cup into the red box.", ["' and finally remove the red box.' is missing"]),
        (MOVE[:-1], ["' and finally remove the red box' should read ' and finally remove the red box.'"]),
        (MOVE.replace("Move", "move"), ["'move the ' should read 'Move the '"]),
        (f"Please {MOVE[0].lower()}{MOVE[1:]}", ["'Please ' does not belong", "'move the ' should read 'Move the '"]),
        (MOVE.replace("box and", "box now and"), ["' now' does not belong before ' and finally"]),
        (f"{MOVE} Thanks.", ["' Thanks.' does not belong at the end"]),
        (MOVE.replace("red cup", ""), ["the object must be described"]),
        (MOVE.replace("red cup", "a\nb"), ["the object must be described in one line"]),
        (MOVE.replace("red cup", " red cup"), ["object ' red cup' should read 'red cup'"]),
        (ROTATE.replace("rear left", "behind"), ["unknown view 'behind'; it is one of front, right"]),
        (ROTATE.replace(" side", ""), ["' side view.' is missing"]),
        (CAMERA.replace("90°", "90"), ["', Pitch ' should read '°, Pitch '"]),
        (CAMERA.replace("-90", "x"), ["yaw must be a finite number of degrees, not 'x'"]),
        (CAMERA.replace("-90", "inf"), ["yaw must be a finite number of degrees, not inf"]),
        (CAMERA.replace("-90", "270"), ["yaw '270' should read '-90'"]),
        (CAMERA.replace("20", "100.0"), ["pitch '100.0' should read '90'"]),
        (CAMERA.replace("unchanged", "closer"), ["unknown zoom 'closer'; it is one of in, out, unchanged"]),
        (
            CAMERA.replace("camera.\n", "camera. "),
            [r"' - Camera rotation: Yaw ' should read '\\n- Camera rotation: Yaw '"],
        ),
        (
            CAMERA.replace("; only change the viewpoint", ""),
            ["Keep the 3D scene static; only change the viewpoint.' is m"],
        ),
        (
            "Move the camera.",
            ["Yaw ' is missing", "Pitch ' is missing", "zoom: ' is missing", "viewpoint.' is missing"],
        ),
    ],
)
def test_near_misses_say_how_they_differ(text, problems):
    parsed = spatial.parse(text)
    assert parsed.instruction is None
    assert len(parsed.problems) == len(problems)
    for found, expected in zip(parsed.problems, problems, strict=True):
        assert expected.replace("\\\\n", "\\n") in found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Turn the plate blue.",
        "Move the cat to the left.",
        "Move the camera closer.",
        "Rotate the picture.",
        "A red box.",
    ],
)
def test_other_instructions_are_left_alone(text):
    assert spatial.parse(text) == spatial.Parsed()


@given(st.sampled_from([MOVE, ROTATE, CAMERA]), st.data())
def test_no_change_is_overlooked(text, data):
    """What replaces a part of a sentence leaves another exact one, or a problem, or no attempt at one."""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    changed = text[:start] + data.draw(st.sampled_from(["", " ", ".", "x", "\n"])) + text[end:]
    parsed = spatial.parse(changed)
    if parsed.instruction:
        assert parsed.instruction.text == changed.strip()
        assert not parsed.problems
    elif any(re.search(template.attempt, changed, re.IGNORECASE | re.DOTALL) for template in spatial.TEMPLATES):
        assert parsed.problems


def red_pixels(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) == spatial.RED).all(-1)


@pytest.mark.parametrize(("side", "line"), [(64, 2), (512, 2), (768, 3), (1024, 4), (2048, 8)])
def test_box_lies_on_its_edges_with_a_line_that_scales(side, line):
    image = Image.new("RGB", (side, side + 32), (0, 90, 200))
    left, top, right, bottom = side // 4, side // 8, side // 2, side
    expected = np.zeros((side + 32, side), bool)
    expected[top:bottom, left:right] = True
    expected[top + line : bottom - line, left + line : right - line] = False
    drawn = spatial.draw_box(image, (left, top, right, bottom))
    assert (red_pixels(drawn) == expected).all()
    assert (np.asarray(drawn)[~expected] == (0, 90, 200)).all()
    assert not red_pixels(image).any()


@pytest.mark.parametrize("corners", [(3, 5, 10, 12), (10, 12, 3, 5), (10, 5, 3, 12), (3.2, 4.9, 9.8, 12.4)])
def test_corners_in_any_order_and_rounded(corners):
    expected = np.zeros((20, 20), bool)
    expected[5:12, 3:10] = True
    expected[6:11, 4:9] = False
    assert (red_pixels(spatial.draw_box(Image.new("RGB", (20, 20)), corners, width=1)) == expected).all()


@pytest.mark.parametrize("box", [(5, 5, 6, 6), (5, 5, 8, 9), (5, 5, 6, 15), (5, 5, 15, 6), (0, 0, 20, 20)])
def test_thick_lines_fill_the_box_and_no_more(box):
    left, top, right, bottom = box
    expected = np.zeros((20, 20), bool)
    expected[top:bottom, left:right] = True
    assert (red_pixels(spatial.draw_box(Image.new("RGB", (20, 20)), box, width=50)) == expected).all()


def test_box_on_other_modes_gives_rgb():
    drawn = spatial.draw_box(Image.new("RGBA", (20, 20), (0, 0, 0, 0)), (0, 0, 10, 10))
    assert drawn.mode == "RGB"
    assert drawn.getpixel((0, 0)) == spatial.RED
    assert drawn.getpixel((19, 19)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((-1, 0, 5, 5), "outside the picture, which is 30 pixels wide and 20 high"),
        ((0, 0, 31, 5), "outside the picture"),
        ((0, 15, 5, 21), "outside the picture"),
        ((40, 40, 50, 50), "outside the picture"),
        ((5, 5, 5, 9), "contains no pixel of the picture, which is 30 pixels wide and 20 high"),
        ((5, 5, 5.2, 9), "contains no pixel"),
        ((0, 0, math.nan, 5), "four finite numbers"),
        ((0, 0, "9", 5), "four finite numbers"),
        ((0, 0, 5), "four finite numbers"),
    ],
)
def test_bad_boxes(box, message):
    with pytest.raises(JoyImageError, match=message):
        spatial.draw_box(Image.new("RGB", (30, 20)), box)


@pytest.mark.parametrize("width", [0, -1, 1.5, True])
def test_bad_line_widths(width):
    with pytest.raises(JoyImageError, match="line's width"):
        spatial.draw_box(Image.new("RGB", (30, 20)), (0, 0, 9, 9), width)
