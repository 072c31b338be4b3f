"""Viewpoint error against closed forms, and on drawn scenes, whose poses are true."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from joyimage.errors import JoyImageError
from joyimage.evaluation.framing import Detection
from joyimage.evaluation.orbits import Orbit, cost, estimate
from joyimage.evaluation.viewpoint import (
    LEAST_BASELINE,
    Pose,
    ViewpointErrors,
    angle_between,
    mean_viewpoint_error,
    viewpoint_error,
)
from tools.tiny import bench, scenes
from tools.tiny.render import render


def turned(axis: int, degrees: float) -> np.ndarray:
    """A rotation about an axis, (3, 3)."""
    a, b = [i for i in range(3) if i != axis]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rotation = np.eye(3)
    rotation[a, a], rotation[a, b], rotation[b, a], rotation[b, b] = cos, -sin, sin, cos
    return rotation


def at(centre, rotation=None) -> Pose:
    rotation = np.eye(3) if rotation is None else rotation
    return Pose(rotation, -rotation @ np.array(centre, float))


def test_a_camera_stands_at_minus_the_rotation_back_of_its_translation():
    rotation = turned(2, 30) @ turned(0, 50)
    assert at((1, -2, 3), rotation).centre == pytest.approx([1, -2, 3])


@pytest.mark.parametrize("degrees", [0, 1e-5, 1, 45, 90, 179.9, 180])
def test_the_angle_between_two_cameras(degrees):
    first = turned(0, 20) @ turned(1, 70)
    assert angle_between(first, first @ turned(1, degrees)) == pytest.approx(degrees, rel=1e-6, abs=1e-9)


def test_the_true_camera_is_perfect():
    source, truth = at((0, 0, 0)), at((3, 4, 0), turned(1, 60))
    assert viewpoint_error(source, truth, truth) == ViewpointErrors(0, 0)


def test_a_camera_that_stayed_is_wrong_by_the_whole_way():
    error = viewpoint_error(at((0, 0, 0)), at((3, 4, 0), turned(1, 45)), at((0, 0, 0)))
    assert error.distance == pytest.approx(1) and error.rotation == pytest.approx(0.5)
    assert error.value == pytest.approx(0.75)


def test_an_error_is_in_units_of_the_true_way():
    error = viewpoint_error(at((0, 0, 0)), at((0, 0, 2)), at((0, 3, 2), turned(2, 9)))
    assert error.distance == pytest.approx(1.5) and error.rotation == pytest.approx(0.1)


def test_a_camera_that_should_hardly_move_is_not_measured():
    assert viewpoint_error(at((0, 0, 0)), at((0, 0, LEAST_BASELINE / 2)), at((0, 0, 1))) is None
    assert viewpoint_error(at((0, 0, 0)), at((0, 0, LEAST_BASELINE * 2)), at((0, 0, 1))) is not None


def test_ve_is_the_mean_of_both_means():
    found = mean_viewpoint_error([ViewpointErrors(0.2, 0.4), ViewpointErrors(0.6, 0.0)])
    assert found == pytest.approx({"distance": 0.4, "rotation": 0.2, "ve": 0.3})
    assert mean_viewpoint_error([]) is None


@pytest.mark.parametrize(
    ("rotation", "translation", "message"),
    [
        (np.eye(4), np.zeros(3), "not \\(4, 4\\)"),
        (np.eye(3), np.zeros((3, 1)), "and \\(3, 1\\)"),
        (np.diag([1, 1, -1]), np.zeros(3), "is no rotation"),
        (2 * np.eye(3), np.zeros(3), "is no rotation"),
        (np.eye(3), np.array([0, np.nan, 0]), "a translation"),
        (np.full((3, 3), np.nan), np.zeros(3), "is no rotation"),
        (None, None, "not \\(\\)"),
        ("rotation", np.zeros(3), "of numbers alone"),
        ([[1, 2], [3]], np.zeros(3), "of numbers alone"),
    ],
)
def test_what_is_no_pose_is_refused(rotation, translation, message):
    with pytest.raises(JoyImageError, match=message):
        Pose(rotation, translation)


def test_drawn_cameras_are_where_they_are():
    """The scene's camera goes around a point: so the error of a turn by an angle is a chord over a chord."""
    source, truth, half = (np.array([yaw, 35.0, 7.0]) for yaw in (0, 60, 30))
    error = viewpoint_error(*map(bench.pose, (source, truth, half)))
    assert error.distance == pytest.approx(math.sin(math.radians(15)) / math.sin(math.radians(30)))
    assert error.rotation == pytest.approx(angle_between(*(bench.pose(c).rotation for c in (truth, half))) / 90)
    eye, basis = scenes.axes(truth[None])
    assert bench.pose(truth).centre == pytest.approx(eye[0])
    assert bench.pose(truth).rotation[2] == pytest.approx(basis[0, 2])  # z is forward


def test_the_camera_whose_rendering_is_nearest_is_the_true_one():
    drawn = scenes.draw(1, np.random.default_rng(3))
    true = drawn.camera[0] + np.array([23.0, -6.0, 1.1])
    pixels = render(replace(drawn, camera=true[None])).pixels[0]
    found = bench.nearest_camera(drawn, pixels, drawn.camera[0])
    assert found == pytest.approx(true, abs=2.0)


@pytest.mark.parametrize("motion", [Orbit(30, 0, 1), Orbit(-60, 15, 0.8), Orbit(0, -15, 1.3), Orbit()])
def test_an_orbit_is_found_from_where_things_are(motion):
    """Things on the plane that the model of the world has, seen before and after."""
    ground = np.array([[x, y, 0.0] for x, y in ((-0.2, 0.0), (0.15, 0.1), (0.05, -0.2))])

    def seen(orbit: Orbit) -> list[Detection]:
        pose = orbit.pose
        found = []
        for name, point in zip("abc", ground, strict=True):
            x, y, depth = pose.rotation @ point + pose.translation
            half = 100 / math.tan(math.radians(19))
            u, v, side = 100 + half * x / depth, 100 + half * y / depth, 10 / depth
            found.append(Detection(name, (u - side, v - side, u + side, v + side)))
        return found

    pictures = [Image.new("RGB", (200, 200)), Image.new("RGB", (200, 200), "red")]
    things = {pictures[0].tobytes(): seen(Orbit()), pictures[1].tobytes(): seen(motion)}
    first, second = estimate(lambda pictures: [things[each.tobytes()] for each in pictures], pictures)
    assert viewpoint_error(at((9, 9, 9)), first, Orbit().pose) == ViewpointErrors(0, 0)
    assert np.linalg.norm(second.centre - motion.pose.centre) < 0.08
    assert angle_between(second.rotation, motion.pose.rotation) < 5


def test_without_a_shared_thing_there_are_no_poses():
    pictures = [Image.new("RGB", (10, 10), colour) for colour in ("red", "blue")]
    found = [[Detection(name, (1, 1, 5, 5))] for name in "ab"]
    assert estimate(lambda pictures: found, pictures) is None


def test_staying_costs_nothing_where_nothing_moved():
    things = np.repeat([[[0.1, -0.2, 0.1, 0.1]]], 2, axis=1)
    assert cost(Orbit(), things) == pytest.approx(0)
    assert cost(Orbit(yaw=20), things) > 0.01
