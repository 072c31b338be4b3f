"""The geometry of spatial data against closed forms."""

import math
import subprocess
import sys

import numpy as np
import pytest

from joyimage.errors import JoyImageError
from joyimage.spatialdata import polygons
from joyimage.spatialdata.cameras import Pinhole, field_of_view, looking_at
from joyimage.spatialdata.fitting import fit_box
from joyimage.spatialdata.oriented import OrientedBox, angles, axis_angle, rotation
from joyimage.spatialdata.overlap import intersection, iou, ious
from joyimage.spatialdata.pictures import sample
from joyimage.spatialdata.visibility import (
    Limits,
    entry_depth,
    hidden_share,
    hull_volume,
    in_picture,
    on_surface,
    outline,
    seen,
    visibility,
)

INTRINSIC = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])


@pytest.fixture
def camera():
    """At the origin; looks along the world's y, with z up."""
    return Pinhole(INTRINSIC, looking_at(np.zeros(3), np.array([0, 1, 0])), 100, 80)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_a_box_from_its_numbers_turns_about_z_then_the_turned_x_then_the_turned_y():
    a, b, c = 0.3, -0.4, 0.7
    box = OrientedBox.from_numbers([1, 2, 3, 4, 5, 6, a, b, c])
    about_z = [[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]]
    about_y = [[math.cos(c), 0, math.sin(c)], [0, 1, 0], [-math.sin(c), 0, math.cos(c)]]
    assert np.allclose(box.rotation, np.array(about_z) @ about_x @ about_y)
    assert np.allclose(box.numbers, [1, 2, 3, 4, 5, 6, a, b, c])


def test_small_letters_turn_about_the_worlds_axes():
    assert np.allclose(rotation((0.1, 0.2, 0.3), "zxy"), rotation((0.3, 0.2, 0.1), "YXZ"))
    assert not np.allclose(rotation((0.1, 0.2, 0.3), "zxy"), rotation((0.1, 0.2, 0.3), "ZXY"))
    with pytest.raises(JoyImageError, match="order of angles"):
        rotation((0, 0, 0), "zXy")


@pytest.mark.parametrize("order", ["ZXY", "zxy", "XYZ", "yzx"])
def test_rotations_are_scipys(order, generator):
    transform = pytest.importorskip("scipy.spatial.transform")
    turns = generator.uniform(-3, 3, 3)
    assert np.allclose(rotation(turns, order), transform.Rotation.from_euler(order, turns).as_matrix())
    assert np.allclose(axis_angle(turns), transform.Rotation.from_rotvec(turns).as_matrix())


@pytest.mark.parametrize("lean", [math.pi / 2, -math.pi / 2])
def test_angles_where_two_axes_fall_together(lean):
    matrix = rotation((0.4, lean, 0.2))
    assert np.allclose(rotation(angles(matrix)), matrix)


def test_axis_and_angle():
    assert np.allclose(axis_angle([0, 0, math.pi / 2]) @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(axis_angle([0, 0, 0]), np.eye(3))


def test_corners_volume_and_heading_of_an_upright_box():
    box = OrientedBox.upright([1, 1, 1], [4, 2, 2], math.pi / 2)
    assert np.allclose(box.corners.min(0), [0, -1, 0]) and np.allclose(box.corners.max(0), [2, 3, 2])
    assert box.volume == 16 and box.stands and math.isclose(box.heading, math.pi / 2)
    assert box.contains(np.array([[1.9, 2.9, 0.1], [2.1, 1, 1]])).tolist() == [True, False]
    assert box.contains(np.array([2.1, 1, 1]), margin=0.2) and not box.contains(np.array([1.9, 1, 1]), margin=-0.2)


def test_a_box_in_the_cameras_frame(camera):
    box = OrientedBox.upright([0, 5, 1], [1, 2, 3]).moved(np.linalg.inv(camera.pose))
    assert np.allclose(box.centre, [0, -1, 5])
    assert np.allclose(np.ptp(box.corners, axis=0), [1, 3, 2])


@pytest.mark.parametrize(
    ("centre", "size", "turn"),
    [
        ([0, 0], [1, 1, 1], np.eye(3)),
        ([0, 0, 0], [-1, 1, 1], np.eye(3)),
        ([0, 0, 0], [1, 1, 1], np.diag([1, 1, -1])),
        (None, [1, 1, 1], np.eye(3)),
        ("middle", [1, 1, 1], np.eye(3)),
        ([0, 0, 0], [[1], [1, 2]], np.eye(3)),
    ],
)
def test_what_is_no_box_is_refused(centre, size, turn):
    with pytest.raises(JoyImageError, match="a box's"):
        OrientedBox(centre, size, turn)


def test_a_point_ahead_is_in_the_middle_and_one_to_the_right_and_up_is_there(camera):
    pixels, depth = camera.project(np.array([[0, 2, 0], [1, 2, 0], [0, 2, 0.5], [0, -1, 0]]))
    assert np.allclose(pixels[:3], [[50, 40], [100, 40], [50, 15]]) and np.allclose(depth, [2, 2, 2, -1])
    assert np.isnan(pixels[3]).all()


def test_back_projection_undoes_projection(camera, generator):
    points = generator.uniform([-1, 2, -1], [1, 5, 1], (50, 3))
    pixels, depth = camera.project(points)
    assert np.allclose(camera.back_project(pixels, depth), points)


def test_the_points_of_a_depth_picture_are_those_of_its_pixels_middles(camera):
    depth = np.zeros((80, 100), dtype=np.float32)
    depth[39, 50], depth[10, 10] = 4, 2
    mask = np.zeros(depth.shape, dtype=bool)
    mask[39] = True
    assert np.allclose(camera.points(depth, mask), [[0.5 * 4 / 100, 4, 0.5 * 4 / 100]])
    assert len(camera.points(depth)) == 2


def test_index_gives_the_pixel_that_shows_a_point(camera):
    rows, columns, depth, inside = camera.index(np.array([[0.001, 2, 0.001], [-5, 2, 0]]))
    assert (rows[0], columns[0], inside[0]) == (39, 50, True) and not inside[1] and np.allclose(depth, 2)


def test_a_resized_camera_sees_the_same(camera):
    point = np.array([0.3, 2, 0.1])
    assert np.allclose(camera.resized(200, 160).project(point)[0], 2 * camera.project(point)[0])
    assert field_of_view(INTRINSIC, 100, 80) == pytest.approx(field_of_view(camera.resized(50, 40).intrinsic, 50, 40))
    assert field_of_view(INTRINSIC, 200, 200)[0] == pytest.approx(90)


def test_another_cameras_pixels_are_sampled_where_both_see_the_same(camera):
    values = np.arange(8000).reshape(80, 100)
    assert (sample(values, camera, camera) == values).all()
    half = sample(values, camera, Pinhole(INTRINSIC, camera.pose, 50, 40))  # its left upper quarter
    assert (half == values[:40, :50]).all()
    shifted = INTRINSIC + np.array([[0, 0, 10], [0, 0, 0], [0, 0, 0]])
    moved = sample(values, camera, Pinhole(shifted, camera.pose, 100, 80))
    assert (moved[:, 10:] == values[:, :-10]).all() and (moved[:, :10] == 0).all()


@pytest.mark.parametrize(
    "pose",
    [np.eye(3), 2 * np.eye(4), np.diag([1, 1, -1, 1.0]), np.full((4, 4), np.nan), None, "pose", [[1], [1, 2]], []],
)
def test_what_is_no_pose_is_refused(pose):
    with pytest.raises(JoyImageError, match="pose"):
        Pinhole(INTRINSIC, pose, 100, 80)


@pytest.mark.parametrize("intrinsic", [None, "lens", [[1], [1, 2]], np.eye(2), np.full((3, 3), np.nan), 50.0, []])
def test_what_are_no_intrinsics_is_refused(intrinsic):
    with pytest.raises(JoyImageError, match="a camera's intrinsics"):
        Pinhole(intrinsic, np.eye(4), 100, 80)


@pytest.mark.parametrize("side", [0, -1, 64.5, math.nan, "64", None])
def test_a_camera_has_whole_pixels(side):
    for sides in ((side, 80), (100, side)):
        with pytest.raises(JoyImageError, match="no whole number of pixels"):
            Pinhole(INTRINSIC, np.eye(4), *sides)


def test_hull_area_and_cut_of_polygons():
    square = polygons.hull(np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 1], [1, 0]]))
    assert len(square) == 4 and polygons.area(square) == 4
    assert polygons.area(polygons.cut(square, square[:, 0] - 0.5)) == pytest.approx(1)
    assert polygons.area(polygons.within(square - 1, 5, 0.25)) == pytest.approx(0.25)
    assert polygons.covers(square, np.array([[1, 1], [3, 1]])).tolist() == [True, False]


def test_the_outline_of_a_box_and_the_share_in_the_picture(camera):
    box = OrientedBox.upright([0, 2.5, 0], [1, 1, 1])  # its near side is at 2
    around = outline(box, camera)
    assert np.allclose(around.min(0), [25, 15]) and np.allclose(around.max(0), [75, 65])
    assert in_picture(box, camera) == pytest.approx(1)
    aside = OrientedBox.upright([1, 2.5, 0], [1, 1, 1])
    # Of the near side, 25 of 50 pixels; and all of the trapezium beside it that shows the box's left side.
    trapezium = (75 - 200 / 3) * (50 + 100 / 3) / 2
    assert in_picture(aside, camera) == pytest.approx((1250 + trapezium) / (2500 + trapezium))
    assert in_picture(OrientedBox.upright([0, -3, 0], [1, 1, 1]), camera) == 0


def test_a_box_around_the_camera_fills_the_picture(camera):
    around = outline(OrientedBox.upright([0, 0, 0], [4, 4, 4]), camera)
    assert polygons.area(polygons.within(around, 100, 80)) == pytest.approx(8000)


def test_what_is_hidden_by_depth(camera):
    wall = np.full((80, 100), 3.0, dtype=np.float32)
    wall[:, :50] = 0
    points = np.array([[0.5, 2, 0], [0.5, 3.05, 0], [0.5, 4, 0], [-0.5, 9, 0], [9, 2, 0]])
    assert seen(points, camera, wall).tolist() == [True, True, False, True, False]


def test_where_rays_enter_a_box(camera):
    enter = entry_depth(OrientedBox.upright([0, 3, 0], [1, 1, 1]), camera)  # its near side is at 2.5
    assert np.allclose(enter[20:60, 30:70], 2.5) and np.isinf(enter[:19]).all() and np.isinf(enter[:, :29]).all()
    slanted = entry_depth(OrientedBox.upright([0, 3, 0], [math.sqrt(2)] * 3, math.pi / 4), camera)
    assert slanted[40, 50] == pytest.approx(2, abs=0.02) and slanted[40, 70] == pytest.approx(2 / (1 - 0.205), abs=0.01)
    assert (entry_depth(OrientedBox.upright([0, 0, 0], [1, 1, 1]), camera) <= 0).all()


def test_the_share_of_a_box_that_is_hidden(camera):
    box = OrientedBox.upright([0, 3, 0], [1, 1, 1])
    depth = np.full((80, 100), 9.0, np.float32)
    assert hidden_share(box, camera, depth) == 0 and hidden_share(box, camera, depth * 0) == 0
    depth[:, :50] = 2
    assert hidden_share(box, camera, depth) == pytest.approx(0.5)
    assert hidden_share(OrientedBox.upright([0, -3, 0], [1, 1, 1]), camera, depth) == 1


def test_visibility_of_a_box_counts_points_of_its_surface_and_their_hull(camera):
    box = OrientedBox.upright([0, 3, 0], [1, 1, 1])
    enter = entry_depth(box, camera)
    slanted = np.where(np.isfinite(enter), enter + np.linspace(0, 0.8, 100)[None], 9).astype(np.float32)
    found = visibility(box, camera, slanted, np.isfinite(enter))
    assert found.points == (on_surface(box, camera.points(slanted))).sum() > 1000
    assert found.mask == pytest.approx(0.2, abs=0.02) and found.in_picture == pytest.approx(1) and found.hidden == 0
    assert 0 < found.hull < 0.3 and found.passes(Limits(hull=0)) and not found.passes(Limits(hull=0.5))
    wall = visibility(box, camera, np.full((80, 100), 2.0, np.float32))
    assert wall.points == 0 and wall.mask is None and wall.hidden == 1 and not wall.passes(Limits(points=0, hull=0))
    assert not visibility(box, camera, slanted, np.isfinite(enter) & False).passes(Limits(hull=0))


def test_what_is_looked_at_around_a_box_is_all_that_counts(camera, generator):
    """Against the whole view, for boxes anywhere: in the picture, half out of it, around the camera, behind it."""
    seen = 0
    for _ in range(200):
        place = generator.uniform((-3, -1, -2), (3, 6, 2))
        box = OrientedBox(place, generator.uniform(0.2, 3, 3), rotation(generator.uniform(-3, 3, 3)))
        depth = generator.uniform(0.1, 7, (80, 100)).astype(np.float32)
        found, points = visibility(box, camera, depth), camera.points(depth)
        points = points[on_surface(box, points)]
        assert found.points == len(points) and found.hidden == hidden_share(box, camera, depth)
        assert found.hull == pytest.approx(hull_volume(points) / box.volume)
        seen += len(points) > 0
    assert 50 < seen < 190


def test_what_a_box_stands_on_is_not_its_surface():
    box = OrientedBox.upright([0, 0, 1], [1, 1, 2])
    points = np.array([[0, 0, 0.1], [0, 0, 0.2], [0.55, 0, 1], [0.65, 0, 1]])
    assert on_surface(box, points).tolist() == [False, True, True, False]


def test_the_volume_of_a_hull(generator):
    corners = OrientedBox.upright([0, 0, 0], [1, 2, 3], 0.4).corners
    assert hull_volume(np.concatenate([corners, 0.3 * corners])) == pytest.approx(6)
    assert hull_volume(corners[:3]) == 0 and hull_volume(np.zeros((9, 3))) == 0


@pytest.mark.parametrize("method", ["upright", "volume"])
@pytest.mark.parametrize("heading", np.linspace(-1.5, 1.5, 7))
def test_a_box_is_found_again_from_points_in_it(method, heading, generator):
    box = OrientedBox.upright([1, -2, 0.5], [3, 1, 2], heading)
    inside = box.centre + (generator.uniform(-0.5, 0.5, (200, 3)) * box.size) @ box.rotation.T
    found = fit_box(np.concatenate([inside, box.corners]), method)
    assert iou(found, box) > 0.9999
    if method == "upright":
        assert found.stands and math.cos(2 * (found.heading - heading)) > 0.9999 and np.allclose(found.size, box.size)


def test_a_tilted_box_is_found_by_volume_and_by_principal_axes(generator):
    box = OrientedBox.from_numbers([0, 0, 0, 4, 2, 1, 0.5, 0.6, 0.7])
    assert iou(fit_box(box.corners, "volume"), box) > 0.9999
    assert iou(fit_box(box.corners, "pca"), box) > 0.9999
    assert fit_box(box.corners, "upright").volume > 1.3 * box.volume


def test_boxes_of_flat_points_lines_and_one_point():
    picture = np.array([[0, 0, 0], [1, 1, 0], [1, 1, 2], [0, 0, 2.0]])
    for method in ("upright", "volume", "pca"):
        assert np.allclose(np.sort(fit_box(picture, method).size), [0, math.sqrt(2), 2])
    assert np.allclose(fit_box(np.array([[1, 2, 3.0]])).size, 0)
    with pytest.raises(JoyImageError, match="finite points"):
        fit_box(np.zeros((0, 3)))
    with pytest.raises(JoyImageError, match="no way"):
        fit_box(picture, "best")


def test_overlap_of_boxes_in_closed_form():
    box = OrientedBox.upright([0, 0, 0], [2, 2, 2])
    assert iou(box, box) == pytest.approx(1)
    assert iou(box, OrientedBox.upright([1, 0, 0], [2, 2, 2])) == pytest.approx(1 / 3)
    assert iou(box, OrientedBox.upright([2, 0, 0], [2, 2, 2])) == 0
    assert intersection(box, box.scaled(0.5)) == pytest.approx(1)
    turned = OrientedBox.upright([0, 0, 0], [2, 2, 2], math.pi / 4)
    assert intersection(box, turned) == pytest.approx(16 * (math.sqrt(2) - 1))  # an octagon, 2 high
    assert iou(box, OrientedBox.upright([0, 0, 0], [0, 2, 2])) == 0


def test_a_cube_on_its_corner_cut_by_a_box():
    """Half a cube whose long diagonal stands upright; the cut is a hexagon through its middle."""
    down = np.array([1, 1, 1]) / math.sqrt(3)
    u = np.array([1, -1, 0]) / math.sqrt(2)
    cube = OrientedBox(np.zeros(3), np.ones(3), np.stack([u, np.cross(down, u), down]))
    above = OrientedBox.upright([0, 0, 2], [4, 4, 4])
    assert intersection(cube, above) == pytest.approx(0.5) and intersection(above, cube) == pytest.approx(0.5)


def test_overlap_agrees_with_points_drawn_at_random(generator):
    first = OrientedBox.from_numbers([0, 0, 0, 2, 1, 1.5, 0.4, 0.2, -0.3])
    second = OrientedBox.from_numbers([0.3, 0.2, 0.1, 1, 2, 1, -0.7, 0.5, 0.2])
    points = first.centre + (generator.uniform(-0.5, 0.5, (200_000, 3)) * first.size) @ first.rotation.T
    expected = second.contains(points).mean() * first.volume
    assert intersection(first, second) == pytest.approx(expected, rel=0.01)
    assert ious([first, second], [second]).shape == (2, 1)
    assert iou(first, second) == pytest.approx(iou(second, first))


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.delitem(sys.modules, "scipy.spatial", raising=False)
    with pytest.raises(JoyImageError, match=r'scipy is not installed .*pip install "joyimage\[data\]"'):
        fit_box(np.eye(3))


def test_reading_and_projecting_need_no_extra():
    """Hulls, neighbours and Parquet alone do."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('scipy', 'pyarrow', 'webdataset')));"
        "from joyimage.spatialdata import readers, lifting, motion, overlap, visibility, association"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
