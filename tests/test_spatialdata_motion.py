"""Camera motions in the model's words."""

import math

import numpy as np
import pytest

from joyimage import spatial
from joyimage.spatialdata.cameras import Pinhole, looking_at
from joyimage.spatialdata.motion import Sayable, instruction, meeting_point, motion, rotation_between
from joyimage.spatialdata.oriented import axis_angle
from tools.tiny import captures, scenes

INTRINSIC = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
TARGET = np.array([0.5, -0.2, 0.4])


def orbit(azimuth, elevation, distance=4.0, target=TARGET):
    """A camera that looks at the target; azimuth 0 stands on its -y side, 90 on its +x side."""
    a, e = math.radians(azimuth), math.radians(elevation)
    back = np.array([math.cos(e) * math.sin(a), -math.cos(e) * math.cos(a), math.sin(e)])
    return Pinhole(INTRINSIC, looking_at(target + distance * back, target), 100, 100)


@pytest.mark.parametrize(("yaw", "pitch", "factor"), [(30, 0, 1), (-120, 15, 1.3), (180, -20, 0.75), (5, 30, 1)])
def test_the_motion_of_a_camera_around_what_both_look_at(yaw, pitch, factor):
    move = motion(orbit(20, 30), orbit(20 + yaw, 30 + pitch, 4 * factor))
    assert (move.yaw, move.pitch, move.distance) == pytest.approx((yaw, pitch, factor), abs=1e-6)
    assert np.allclose(move.target, TARGET) and move.miss < 1e-9 and move.roll == pytest.approx(0, abs=1e-6)


def test_positive_yaw_goes_around_to_the_right_and_positive_pitch_up():
    first = orbit(0, 30)
    right = first.pose[:3, 0]
    second = orbit(30, 45)
    assert (second.centre - first.centre) @ right > 0.5 and second.centre[2] > first.centre[2]
    assert instruction(motion(first, second)) == spatial.Camera(30, 15)


@pytest.mark.parametrize(("factor", "zoom"), [(0.78, "in"), (1.28, "out"), (1.02, "unchanged")])
def test_nearer_is_zoomed_in(factor, zoom):
    told = instruction(motion(orbit(0, 30), orbit(45, 30, 4 * factor)))
    assert told == spatial.Camera(45, 0, zoom) and spatial.parse(told.text).instruction == told


def test_a_camera_that_only_comes_nearer_needs_a_target():
    first, second = orbit(0, 30), orbit(0, 30, 3)
    assert motion(first, second) is None
    move = motion(first, second, TARGET)
    assert move.distance == pytest.approx(0.75) and instruction(move) == spatial.Camera(0, 0, "in")


def turned(camera, vector):
    """Turned on the spot, about an axis in its own frame."""
    pose = camera.pose.copy()
    pose[:3, :3] = pose[:3, :3] @ axis_angle(vector)
    return Pinhole(camera.intrinsic, pose, camera.width, camera.height)


def shifted(camera, offset):
    pose = camera.pose.copy()
    pose[:3, 3] += offset
    return Pinhole(camera.intrinsic, pose, camera.width, camera.height)


def test_what_the_sentence_has_no_words_for_is_not_said():
    first, second = orbit(0, 30), orbit(40, 30)
    assert instruction(motion(first, second, TARGET)) is not None
    rolled = motion(first, turned(second, [0, 0, math.radians(8)]), TARGET)
    assert abs(rolled.roll) == pytest.approx(8) and instruction(rolled) is None
    away = motion(first, turned(second, [0, math.radians(10), 0]), TARGET)
    assert away.miss == pytest.approx(math.sin(math.radians(10))) and instruction(away) is None
    aside = motion(first, shifted(second, np.array([0.9, 0.9, 0])), TARGET)
    assert instruction(aside) is None
    for factor in (1.1, 0.9, 1.6, 0.5):  # neither unchanged nor clearly one zoom, or more than one
        assert instruction(motion(first, orbit(40, 30, 4 * factor))) is None
    longer = Pinhole(np.diag([1.2, 1.2, 1]) @ INTRINSIC, second.pose, 100, 100)
    assert instruction(motion(first, longer, TARGET)) is None
    assert instruction(motion(first, orbit(1, 30), TARGET)) is None  # nothing moves


def test_there_is_no_motion_around_what_lies_behind_or_below():
    assert motion(orbit(0, 30), orbit(40, 30), np.array([0, -50, 0])) is None
    assert motion(orbit(0, 30), orbit(40, 88)) is None
    first = orbit(0, 30)
    assert instruction(motion(first, turned(first, [0, 0.3, 0]), TARGET)) is None  # on the spot


def test_the_meeting_point_of_many_cameras_is_the_nearest_to_their_axes():
    cameras = [orbit(azimuth, 30) for azimuth in range(0, 360, 60)]
    assert np.allclose(meeting_point(cameras), TARGET)
    assert meeting_point([orbit(0, 30), orbit(0, 30, 2)]) is None


def test_limits_are_settings():
    move = motion(orbit(0, 30), orbit(40, 30, 4.4))
    assert instruction(move, Sayable(unchanged=1.15)).zoom == "unchanged"
    assert instruction(move, Sayable(least=1.08)).zoom == "out"


def test_the_angle_between_two_cameras():
    assert rotation_between(orbit(0, 0), orbit(50, 0)) == pytest.approx(50)
    assert rotation_between(orbit(0, 0), orbit(0, 0)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("zoom", range(len(scenes.ZOOM)))
@pytest.mark.parametrize("yaw", [-90, -15, 45, 165])
def test_motions_are_those_of_the_bundled_models_convention(yaw, zoom):
    camera = np.array([[10.0, 35.0, scenes.DISTANCE]])
    moved = scenes.moved_camera(camera, np.array([yaw]), np.array([-15]), np.array([zoom]))
    first, second = (Pinhole(INTRINSIC, pose, 100, 100) for pose in captures.poses(np.concatenate([camera, moved])))
    told = instruction(motion(first, second))
    assert told == spatial.Camera(yaw, -15, list(scenes.ZOOM)[zoom])
