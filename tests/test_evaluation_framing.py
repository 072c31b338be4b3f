"""Framing error and the overlap of moved objects: by hand, and on drawn scenes, whose boxes are true."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from joyimage.boxes import overlap
from joyimage.errors import JoyImageError
from joyimage.evaluation.framing import (
    Detection,
    Framed,
    FramingErrors,
    framing_error,
    matches,
    mean_framing_error,
)
from joyimage.evaluation.layout import fitted_box
from joyimage.images import cover
from tools.tiny import bench
from tools.tiny.render import render
from tools.tiny.scenes import DISTANCE, SLOTS

SIZE = (1000, 800)
FOCAL = 900.0


def thing(label: str, x: float, y: float = 400, side: float = 100) -> Detection:
    return Detection(label, (x - side / 2, y - side / 2, x + side / 2, y + side / 2))


def framed(*things: Detection) -> Framed:
    return Framed(things, SIZE)


def angle(x: float) -> float:
    """Of a thing at half the height, from the middle."""
    return math.degrees(math.atan((x - 500) / FOCAL))


TRUTH = framed(thing("cup", 300), thing("plate", 700, side=200))


def test_a_ray_goes_through_the_middle_of_a_box():
    ray = thing("cup", 860, 220).ray(SIZE)
    assert ray == pytest.approx(np.array([360, -180, 900]) / math.hypot(360, 180, 900))


def test_the_true_picture_is_perfect():
    error = framing_error(framed(thing("cup", 400, side=80), thing("plate", 600, side=160)), TRUTH, TRUTH, -1.0)
    assert error == FramingErrors(0, 0, True)
    assert mean_framing_error([error])["fe"] == 0


def test_the_angle_is_the_mean_of_the_rays():
    shifted = framed(thing("cup", 350), thing("plate", 800, side=200))
    error = framing_error(TRUTH, TRUTH, shifted, 0.0)
    expected = (angle(350) - angle(300) + angle(800) - angle(700)) / 2
    assert error.angle == pytest.approx(expected) and error.zoom is None


def test_one_match_is_too_few_for_an_angle_and_counts_as_the_worst():
    error = framing_error(TRUTH, TRUTH, framed(thing("cup", 300)), 0.0)
    assert error == FramingErrors(None, None, False)
    assert mean_framing_error([error])["angle_degrees"] == 20


@pytest.mark.parametrize(
    ("side", "distance", "wrong"), [(120, -1, 0), (80, -1, 1), (120, 1, 1), (80, 1, 0), (100, -1, 1), (100, 1, 1)]
)
def test_things_grow_when_the_camera_comes_closer(side, distance, wrong):
    assert framing_error(framed(thing("cup", 500)), TRUTH, framed(thing("cup", 500, side=side)), distance).zoom == wrong


def test_the_zoom_is_that_of_the_median():
    source = framed(*(thing(name, 200 + 200 * i) for i, name in enumerate("abc")))
    after = framed(thing("a", 200, side=300), thing("b", 400, side=90), thing("c", 600, side=95))
    assert framing_error(source, TRUTH, after, 1.0).zoom == 0


def test_a_picture_in_which_nothing_of_the_source_is_left_zooms_wrong():
    error = framing_error(framed(thing("cup", 500)), TRUTH, framed(), -1.0)
    assert error.zoom is None and mean_framing_error([error])["zoom"] == 1


def test_things_of_a_label_are_matched_at_least_cost():
    first, second = framed(thing("cup", 300), thing("cup", 500)), framed(thing("cup", 520), thing("cup", 330))
    assert sorted(match.angle for match in matches(first, second, 60)) == pytest.approx(
        sorted([angle(330) - angle(300), angle(520) - angle(500)])
    )


def test_size_decides_between_things_that_are_as_near():
    first = framed(thing("cup", 500, side=100))
    second = framed(thing("cup", 480, side=100), thing("cup", 520, side=50))
    (match,) = matches(first, second, 60)
    assert match.growth == 0
    (back,) = matches(second, first, 60)  # fewer columns than rows
    assert back.growth == 0


def test_what_is_too_far_apart_is_no_match_and_takes_no_other():
    """As published: the gate comes after the assignment."""
    first, second = framed(thing("cup", 0)), framed(thing("cup", 1000))
    degrees = angle(1000) - angle(0)
    assert len(matches(first, second, degrees + 0.01)) == 1 and not matches(first, second, degrees - 0.01)


def test_only_the_three_largest_of_a_label_count():
    many = framed(*(thing("cup", 100 * i, side=10 * i) for i in range(1, 6)))
    assert [round(each.area) for each in many.by_label()["cup"]] == [2500, 1600, 900]


def test_pictures_of_two_sizes_have_the_same_rays():
    half = Framed((Detection("cup", (125, 175, 175, 225)), Detection("plate", (300, 150, 400, 250))), (500, 400))
    assert framing_error(TRUTH, TRUTH, half, 0.0).angle == pytest.approx(0, abs=1e-9)


def test_fe_is_the_mean_of_both_clamped_and_the_released_script_counts_pictures_without_a_zoom_as_wrong():
    errors = [FramingErrors(10.0, 0.0, True), FramingErrors(None, 1.0, True), FramingErrors(0.0, None, False)]
    found = mean_framing_error(errors)
    assert found["angle_degrees"] == pytest.approx(10) and found["angle"] == pytest.approx(0.5)
    assert found["zoom"] == pytest.approx(0.5) and found["zoom_released"] == pytest.approx(2 / 3)
    assert found["fe"] == pytest.approx(0.5) and found["fe_released"] == pytest.approx((0.5 + 2 / 3) / 2)
    assert mean_framing_error([FramingErrors(40.0, None, False)])["angle"] == 1
    assert mean_framing_error([FramingErrors(10.0, None, False)])["fe"] == pytest.approx(0.5)
    assert mean_framing_error([]) is None


@pytest.mark.parametrize("box", [(0, 0, math.nan, 4), (0, 0, 4), (4, 0, 0, 4), (0, 4, 4, 0), "abcd", None, 5])
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(JoyImageError, match="the box of the detection of 'cup' is"):
        Detection("cup", box)


def test_a_label_is_text_and_a_picture_has_pixels():
    with pytest.raises(JoyImageError, match="the label of a detection must be text"):
        Detection(3, (1, 2, 3, 4))  # type: ignore[arg-type]
    for size in ((0, 5), (5,), (math.nan, 5)):
        with pytest.raises(JoyImageError, match="a picture's size is"):
            Framed((), size)  # type: ignore[arg-type]


@pytest.mark.parametrize(("before", "after"), [((100, 50), (64, 64)), ((50, 100), (64, 64)), ((64, 64), (64, 64))])
def test_a_box_goes_with_its_picture(before, after):
    """White in a picture is where the box is after scaling and cropping."""
    box = (20, 30, 40, 48)
    picture = Image.new("RGB", before)
    picture.paste("white", box)
    seen = np.asarray(cover(picture, after[::-1]).convert("L")) > 127
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    found = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    clipped = [min(max(side, 0), 64) for side in fitted_box(box, before, after)]
    assert found == pytest.approx(clipped, abs=1.01)
    assert before != after or fitted_box(box, before, after) == box


def test_the_overlap_of_a_shifted_box():
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)


@pytest.mark.slow
def test_drawn_scenes_with_known_errors():
    """The true boxes of scenes that a camera sees rightly, turned too far, and zoomed the wrong way."""
    pairs = bench.draw(24)["camera"]
    factor = np.where(pairs.after.camera[:, 2] < DISTANCE, 1.3, 0.8)[:, None]
    wrong = replace(pairs.after, camera=pairs.before.camera * np.concatenate([np.ones_like(factor)] * 2 + [factor], 1))
    turned = replace(pairs.after, camera=pairs.after.camera + np.array([8.0, 0, 0]))
    seen = [seen_in(scenes) for scenes in (pairs.before, pairs.after, turned, wrong)]
    for i, (before, after, off, opposite) in enumerate(zip(*seen, strict=True)):
        distance = float(pairs.after.camera[i, 2] - pairs.before.camera[i, 2])
        shared = {each.label for each in off.detections}
        expected = [apart(a.box, b.box) for a in after.detections for b in off.detections if a.label == b.label]
        if len(shared) > 1:
            assert framing_error(before, after, off, distance).angle == pytest.approx(np.mean(expected), abs=1e-6)
        if distance and opposite.detections:
            assert framing_error(before, after, opposite, distance).zoom == 1
        true = framing_error(before, after, after, distance)
        assert true.angle == pytest.approx(0, abs=1e-9) and true.zoom == (0 if distance else None)


def seen_in(scenes) -> list[Framed]:
    """What a scene's camera sees of each object, by its name."""
    rendered = render(scenes)
    boxes = np.stack([rendered.box(slot) for slot in range(SLOTS)], 1)
    shown = scenes.present & (boxes[..., 2] > boxes[..., 0])
    return [
        Framed(tuple(Detection(scenes.name(i, k), tuple(boxes[i, k])) for k in np.flatnonzero(shown[i])), (64, 64))
        for i in range(len(scenes))
    ]


def apart(a, b) -> float:
    """Degrees between the rays to the middles of two boxes in pictures of 64 pixels, by the cosine."""
    rays = [np.array([(x0 + x1) / 2 - 32, (y0 + y1) / 2 - 32, 0.9 * 64]) for x0, y0, x1, y1 in (a, b)]
    return math.degrees(math.acos(rays[0] @ rays[1] / np.linalg.norm(rays[0]) / np.linalg.norm(rays[1])))
