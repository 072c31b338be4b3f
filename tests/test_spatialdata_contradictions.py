"""Scenes whose files contradict each other are told with the cause, by reader and `data make`; good ones stay."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scans import WRITERS, Thing, save, shoot

from joyimage.cli import main
from joyimage.errors import JoyImageError
from joyimage.spatialdata import Making, inspect, make
from joyimage.spatialdata.cameras import OPENGL, Pinhole, looking_at
from joyimage.spatialdata.index import check_scene, index_scene
from joyimage.spatialdata.lifting import lift, unlifted
from joyimage.spatialdata.oriented import OrientedBox
from joyimage.spatialdata.questions.camera import LARGEST, _other_motions
from joyimage.spatialdata.readers import read_scenes

WIDTH, HEIGHT = 80, 60
THINGS = (
    Thing("chair", OrientedBox.upright([0.2, -0.6, 0.5], [0.8, 0.7, 1])),
    Thing("table", OrientedBox.upright([1.1, 0.7, 0.3], [1, 0.6, 0.6], 0.4)),
    Thing("cupboard", OrientedBox.upright([-1.2, 0.6, 0.8], [0.6, 0.9, 1.6], 0.2)),
)
EYES = ([0.3, -4, 1.9], [3.2, -2, 1.6], [-2.4, -3, 2.1])


@pytest.fixture
def room(tmp_path):
    """Writes a scene in a format into a folder, which it returns."""

    def written(form: str = "nerfstudio", name: str = "room"):
        if form == "openspatial":
            pytest.importorskip("pyarrow")
        intrinsic = np.array([[70, 0, WIDTH / 2], [0, 70, HEIGHT / 2], [0, 0, 1]])
        poses = [looking_at(np.array(eye), np.array([0, 0.1, 0.5])) for eye in EYES]
        folder = tmp_path / "rooms" / name
        folder.mkdir(parents=True)
        WRITERS[form](folder, [shoot(Pinhole(intrinsic, pose, WIDTH, HEIGHT), THINGS) for pose in poses], THINGS)
        return folder

    return written


def change(folder, what) -> None:
    file = folder / "transforms.json"
    values = json.loads(file.read_text())
    what(values)
    file.write_text(json.dumps(values))


def without_masks(values) -> None:
    for frame in values["frames"]:
        del frame["instances_path"]


def posed(turn):
    """Changes each pose (4, 4)."""

    def what(values):
        for frame in values["frames"]:
            frame["transform_matrix"] = turn(np.array(frame["transform_matrix"])).tolist()

    return what


def scaled(pose: np.ndarray, factor: float) -> np.ndarray:
    return np.concatenate([pose[:, :3], pose[:, 3:] * [[factor], [factor], [factor], [1]]], axis=1)


def boxed(factor: float):
    def what(values):
        for thing in values["objects"]:
            thing["box"][:6] = [number * factor for number in thing["box"][:6]]

    return what


def lens(factor: float):
    def what(values):
        for frame in values["frames"]:
            frame |= {key: frame[key] * factor for key in ("fl_x", "fl_y", "cx", "cy")}

    return what


def unit(metres: float):
    return lambda values: values.update(depth_unit_scale_factor=metres)


UP = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])  # from z up to y up
WRONG = {
    "depth in millimetres, said to be metres": (
        unit(1), r"depth_file_path: depth is 1,000 times too large, as depth_unit_scale_factor is 1; 0.001 would",
    ),
    "depth in millimetres, said to be micrometres": (unit(1e-6), "depth is 1,000 times too small, .* 0.001 would"),
    "centimetres": (unit(0.01), "depth is 10 times too large, as depth_unit_scale_factor is 0.01; 0.001 would"),
    "a sensor's quarter": (unit(0.00025), "depth is 4 times too small, .* is 0.00025; 0.001 would"),
    "no known unit": (unit(0.007), r"depth is \d(\.\d+)? times too large, as depth_unit_scale_factor is 0.007"),
    "OpenCV's axes": (posed(lambda pose: pose @ OPENGL), "transform_matrix: .* second and third column negated"),
    "from the world": (posed(np.linalg.inv), "transform_matrix: it must lead from the camera to the world"),
    "OpenCV's, from the world": (posed(lambda pose: np.linalg.inv(pose @ OPENGL)), "it must lead from the camera"),
    "y up": (posed(lambda pose: UP @ pose), "transform_matrix: the world's axes are .* with rows x, y, z as x, -z, y"),
    "cameras in millimetres": (
        posed(lambda pose: scaled(pose, 1000)), "transform_matrix: positions of cameras are 1,000 times too large",
    ),
    "cameras in feet": (posed(lambda pose: scaled(pose, 3.28084)), "positions of cameras are 3.28 times too large"),
    "boxes in millimetres": (boxed(1000), "box in objects: centres and extents are 1,000 times too large"),
    "boxes in centimetres": (boxed(100), "box in objects: centres and extents are 100 times too large"),
    "a lens of larger pictures": (lens(4), "fl_x, fl_y, cx, cy, w and h: they are of .* another size: times 0.25"),
    "a lens of smaller pictures": (lens(0.5), "they are of pictures of another size: times 2"),
}  # fmt: skip


@pytest.mark.parametrize("masked", [True, False], ids=["masks", "boxes alone"])
@pytest.mark.parametrize("name", WRONG)
def test_what_contradicts_the_boxes_is_told_with_its_cause(room, name, masked):
    folder = room()
    what, message = WRONG[name]
    change(folder, what)
    if not masked:
        change(folder, without_masks)
    list(read_scenes(folder))  # which opens no picture
    with pytest.raises(JoyImageError, match=message) as caught:
        list(read_scenes(folder, check=True))
    told = str(caught.value)
    assert told.startswith(f"{folder / 'transforms.json'}: depth, boxes and cameras contradict each other: ")
    assert re.search(", it does in [89] of 9$", told)
    with pytest.raises(JoyImageError, match=message):
        index_scene(next(read_scenes(folder)))


def rewrite(folder, kind: str, what) -> None:
    for path in (folder / kind).iterdir():
        save(path, what(np.asarray(Image.open(path))))


@pytest.mark.parametrize(
    ("kind", "what", "message"),
    [
        ("masks", lambda a: np.where(a > 0, 255, 0), "masks have no number of an object, but 255; objects have 1, 2,"),
        ("masks", lambda a: a * 0, "masks have no number but 0; objects have 1, 2, 3: write the number of each object"),
        ("masks", lambda a: np.where(a > 0, a + 90, 0), "but 91, 92, 93; objects have 1, 2, 3; masks of number 9. lie"),
        ("masks", lambda a: np.where(a > 0, a % 3 + 1, 0), "masks of number . lie in the box of object ., and 9 of 9 "),
        ("depth", lambda a: a * 0, r"no pixel of its 3 views has a depth \(as .*0.png\); save depth above 0"),
        ("depth", lambda a: a[::-1, ::-1] // 3 + 900, "in its box in . of 9 cases. What is measured .* See that depth"),
    ],
)  # fmt: skip
def test_masks_and_depth_of_something_else_are_told(room, kind, what, message):
    folder = room()
    rewrite(folder, kind, lambda array: what(array).astype(array.dtype))
    with pytest.raises(JoyImageError, match=message) as caught:
        list(read_scenes(folder, check=True))
    assert str(caught.value).startswith(f"{folder / 'transforms.json'}: ")


def test_boxes_that_lie_in_no_picture_are_told(room):
    folder = room()
    change(folder, without_masks)
    change(
        folder, posed(lambda pose: np.diag([-1.0, -1, 1, 1]) @ pose - [[0, 0, 0, 0], [0, 0, 0, 99], [0] * 4, [0] * 4])
    )
    with pytest.raises(JoyImageError, match=r"no box of 3 lies in any picture of 3\. See that transform_matrix leads"):
        list(read_scenes(folder, check=True))


@pytest.mark.parametrize("form", ["openspatial", "arkitscenes"])
def test_other_formats_are_told_by_their_own_names(room, form):
    """Depth of a sensor with another step than the format's."""
    folder = room(form)
    depth = folder / ("depth" if form == "openspatial" else "room_frames/lowres_depth")
    rewrite(depth.parent, depth.name, lambda array: array // 10)
    place = {
        "openspatial": "rows.parquet, scene room: .* depth_map with depth_scale",
        "arkitscenes": "room: .* lowres_depth",
    }
    remedy = {
        "openspatial": "depth_scale is 1e\\+03; 100 would be right",
        "arkitscenes": "0.001 m, and 0.01 m would be right",
    }
    with pytest.raises(JoyImageError, match=f"{place[form]}: depth is 10 times too small, as .*{remedy[form]}"):
        list(read_scenes(folder, check=True))


@pytest.mark.parametrize("form", WRITERS)
def test_good_scenes_of_every_format_are_not_refused(room, form):
    assert len(list(read_scenes(room(form), check=True))) == 1


@pytest.mark.parametrize("masked", [True, False], ids=["masks", "boxes alone"])
@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_noise_is_no_contradiction(room, noise, masked):
    generator = np.random.default_rng(5)
    (scene,) = read_scenes(room())
    views = []
    for view in scene.views:
        sensed = view.sensed()
        depth = sensed.depth * (1 + noise * generator.standard_normal(sensed.depth.shape))
        masks = np.roll(sensed.instances, generator.integers(-2, 3, 2), (0, 1)) if masked else None
        views.append(replace(view, depth=depth.astype(np.float32), instances=masks))
    check_scene(replace(scene, views=tuple(views)))


def test_a_view_that_is_out_does_not_cost_the_others(room):
    """As where a tracker lost its way for a moment."""
    folder = room()
    change(folder, lambda values: values["frames"][0].update(transform_matrix=np.eye(4).tolist()))
    index = index_scene(next(read_scenes(folder)))
    assert index.clear[0] == () and len(index.clear[1]) > 1


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (unit(1), "what two views measured of one object lies together in 0 of . cases. depth_file_path: depth is"),
        (posed(lambda pose: pose @ OPENGL), "transform_matrix: its camera has y and z the other way round"),
        (posed(np.linalg.inv), "transform_matrix: it must lead from the camera to the world"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_not_lifted(room, what, message):
    folder = room()
    change(folder, lambda values: [thing.pop("box") for thing in values["objects"]])
    (scene,) = read_scenes(folder, check=True)
    assert len(lift(scene).scene.objects) == 3
    change(folder, what)
    (scene,) = read_scenes(folder)
    with pytest.raises(JoyImageError, match=message):
        lift(scene)
    with pytest.raises(JoyImageError, match=f"no scene can be used.*{message}"):
        make(folder, folder.parent / "set", Making(lift=True))


def test_depth_that_is_no_metres_is_told_of_one_view_without_boxes(room):
    folder = room()
    change(folder, lambda values: [thing.pop("box") for thing in values["objects"]])
    change(folder, lambda values: values.update(depth_unit_scale_factor=1, frames=values["frames"][:1]))
    with pytest.raises(
        JoyImageError, match=r"half of all depth is above .* m, and lengths are said to be metres, as depth_unit"
    ):
        list(read_scenes(folder, check=True))
    change(folder, lambda values: values.update(metric=False))
    list(read_scenes(folder, check=True))


def test_nothing_lifted_is_told(room):
    folder = room()
    change(folder, lambda values: [thing.pop("box") for thing in values["objects"]])
    rewrite(folder, "masks", lambda array: np.where(np.arange(array.size).reshape(array.shape) % 977 == 0, array, 0))
    (scene,) = read_scenes(folder)
    assert "no box can be fitted: no object has 30 measured points" in unlifted(lift(scene))
    with pytest.raises(JoyImageError, match=r"transforms\.json: no box can be fitted"):
        make(folder, folder.parent / "set", Making(lift=True))


# -- what `data make` says --------------------------------------------------------------------------------------------


def test_it_counts_as_what_could_not_be_used(room, tmp_path, capsys):
    room(name="good")
    change(room(name="wrong"), unit(1))
    command = ["data", "make", str(tmp_path / "rooms"), str(tmp_path / "set"), "--tasks", "height", "--quiet"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "note: wrong is left out: " in said.err and "depth is 1,000 times too large" in said.err
    assert "from 1 of 2 scenes" in said.out
    assert [name for name, _ in inspect(tmp_path / "set").failed] == ["wrong"]


SILENT = [
    (lambda values: values.update(objects=[]), {}, "it names no objects: give objects with boxes, or with masks"),
    (
        lambda values: [thing.update(category="wall") for thing in values["objects"]], {},
        "it names no objects but ceiling, floor, wall",
    ),
    (lambda values: values.update(metric=False), {"tasks": "height"}, "height needs lengths in metres"),
    (lambda values: None, {"tasks": "orientation"}, r"orientation needs an object whose front is known \(faces\)"),
    (
        lambda values: values.update(frames=values["frames"][:1]), {"tasks": ("camera_motion", "camera_pose")},
        "camera_motion needs 2 views; camera_pose needs 3 views",
    ),
    (lambda values: None, {"tasks": "proximity"}, "proximity: of 3 visible objects in 3 views nothing"),
    (lambda values: None, {"tasks": "none", "edits": "move"}, "move pairs: they need another state of a scene"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "settings", "message"), SILENT)
def test_a_scene_of_which_nothing_came_says_why(room, tmp_path, what, settings, message, capsys):
    folder = room()
    change(folder, what)
    made = make(folder, tmp_path / "set", Making(**{"edits": "none", **settings}))
    ((name, reason),) = made.silent
    assert made.failed == () and made.used == 0 and name == "room" and reason.startswith(message.split("\\")[0])
    assert inspect(tmp_path / "set").silent == made.silent and f"room: nothing came of it: {reason}" in str(
        inspect(tmp_path / "set")
    )


def test_a_scene_too_far_away_says_so(room, tmp_path):
    folder = room()
    rewrite(folder, "masks", lambda array: np.where(np.arange(array.size).reshape(array.shape) % 37 == 0, array, 0))
    made = make(folder, tmp_path / "set", Making(edits="none"))
    assert "no object counts as visible in 3 views: " in made.silent[0][1]
    assert "it covers less than 0.5% of the picture" in made.silent[0][1]


def test_a_table_of_choices_is_not_made_of_what_has_none(tmp_path, room, capsys):
    with pytest.raises(JoyImageError, match="a tsv takes multiple choice alone, and height has none"):
        Making(tasks=("height",), format="tsv")
    assert main(["data", "make", str(room()), str(tmp_path / "set"), "--tasks", ""]) == 2
    assert "--tasks is empty; name some, or say all or none" in capsys.readouterr().err


@pytest.mark.parametrize("right", [(30, -15, "in"), (0, 0, "unchanged"), (-165, 5, "out"), (22.5, 7.5, "in")])
def test_options_of_a_motion_do_not_tell_by_what_they_share(right):
    generator = random.Random(3)
    for _ in range(50):
        options = [right, *_other_motions(generator, *right)]
        assert len(set(options)) == 4
        for part in range(3):
            assert sorted(Counter(option[part] for option in options).values()) in ([2, 2], [4])
        assert all(abs(yaw) <= LARGEST for yaw, _, _ in options)
