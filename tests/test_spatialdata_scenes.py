"""Whole scenes in which boxes stand anywhere: behind cameras, half outside, around them, far away, tiny and huge."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scans import WRITERS, Thing, save, shoot

from joyimage.spatialdata import TASKS, Making, make
from joyimage.spatialdata.cameras import Pinhole, looking_at
from joyimage.spatialdata.checking.truth import Truth
from joyimage.spatialdata.index import index_scene
from joyimage.spatialdata.inspecting import sheet
from joyimage.spatialdata.inspecting.contents import read_samples
from joyimage.spatialdata.oriented import OrientedBox
from joyimage.spatialdata.questions.form import Asking
from joyimage.spatialdata.readers import read_scenes
from joyimage.spatialdata.records import CHOICE
from joyimage.spatialdata.tasks import check, make_questions
from joyimage.spatialdata.visibility import visible_edges

pytest.importorskip("pyarrow")
pytest.importorskip("scipy")
pytestmark = pytest.mark.slow

WIDTH, HEIGHT, FOCAL = 96, 72, 80.0
EYES = np.array([[0, -4, 2], [3.5, -2, 1.6], [4, 1.5, 2.2], [-3.6, -1.5, 1.8]])


def upright(centre, size, heading=0.0) -> OrientedBox:
    return OrientedBox.upright(centre, size, heading)


THINGS = [
    Thing("cupboard", upright([0, 0, 0.6], [0.9, 0.5, 1.2], 0.3)),
    Thing("chair", upright([0.9, -0.9, 0.4], [0.5, 0.5, 0.8], 1.1)),
    Thing("box", upright([-1.0, -0.6, 0.25], [0.6, 0.4, 0.5], -0.4)),
    Thing("box", upright([-0.4, 1.2, 0.3], [0.7, 0.5, 0.6], 0.1)),
    Thing("carpet", upright([0.6, 0.5, 0.03], [1.2, 0.8, 0.06])),
    Thing("door behind a camera", upright([0, -6, 1], [1, 0.1, 2])),
    Thing("table beside a camera", upright([0.9, -3.9, 0.75], [1.2, 3.0, 1.5])),
    Thing("shelf half outside", upright([-3.0, 2.2, 1.5], [2.0, 0.5, 3.0], 0.8)),
    Thing("tower far away", upright([40, 5e5, 300], [100, 100, 600])),
    Thing("pin", upright([0.2, -1.2, 0.0005], [0.001, 0.001, 0.001])),
    Thing("hall around all", upright([0, 0, 500], [4000, 4000, 1000])),
    Thing("world", upright([0, 0, 0], [1e8, 1e8, 1e8])),
    Thing("sheet of no thickness", upright([1.4, 0.9, 0.4], [0.8, 0.0, 0.8], 0.5)),
    Thing("point", upright([0, 0, 3], [0, 0, 0])),
]


def cameras() -> list[Pinhole]:
    intrinsic = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return [Pinhole(intrinsic, looking_at(eye, np.array([0, 0, 0.5])), WIDTH, HEIGHT) for eye in EYES]


@pytest.fixture(scope="module", params=WRITERS)
def room(request, tmp_path_factory):
    """The folder of the scene in a format."""
    folder = tmp_path_factory.mktemp(request.param) / "room"
    folder.mkdir()
    WRITERS[request.param](folder, [shoot(camera, THINGS) for camera in cameras()], THINGS)
    return request.param, folder


def test_a_scene_is_used_wherever_its_boxes_stand(room, tmp_path):
    name, folder = room
    made = make(folder, tmp_path / "set", Making(quota=3, lift=name == "scannet"))
    assert made.failed == () and made.used == 1
    asked = {task for task, count in made.questions.items() if count}
    assert asked >= {"absolute_distance", "height", "relative_size", "counting", "camera_distance", "grounding_3d"}
    assert made.pairs["camera"] and Image.open(sheet(tmp_path / "set", tmp_path / "sheet.png", 60)).height > 500
    forms = {turn.form for sample in read_samples(tmp_path / "set") for turn in sample.turns}
    assert CHOICE in forms


def test_what_is_asked_about_it_is_right(room):
    name, folder = room
    if name in ("scannet", "arkitscenes"):
        pytest.skip("without boxes or without masks: a check has no truth to go by")
    (scene,) = read_scenes(folder)
    index, truth = index_scene(scene), Truth(scene)
    seen = {index.things[n].category for inside in index.clear for n in inside}
    assert seen >= {"cupboard", "chair", "box"} and not seen & {"world", "point", "pin", "tower far away"}
    found = list(make_questions(index, dict.fromkeys(TASKS, 6), Asking()))
    assert len(found) > 60
    for question in found:
        assert check(truth, question), (question.task, question.text, question.answer)


def test_a_sheet_draws_the_part_of_a_box_that_is_not_behind_the_camera(tmp_path):
    WRITERS["nerfstudio"](tmp_path / "room", [shoot(cameras()[0], THINGS[:1])], THINGS[:1])
    make(tmp_path / "room", tmp_path / "set", Making(tasks=("grounding_3d",), edits=("none",)))
    file = tmp_path / "set" / "questions.jsonl"
    values = json.loads(file.read_text())
    beside = {"label": "shelf", "bbox_3d": [-0.8, 0.3, 0.5, 0.4, 0.4, 4, 0, 0, 0]}
    values["conversations"][1]["value"] = json.dumps([beside])
    file.write_text(json.dumps(values) + "\n")
    shown = np.asarray(Image.open(sheet(tmp_path / "set", tmp_path / "sheet.png", 1)).convert("RGB"))
    assert (shown == (0, 220, 0)).all(-1).sum() > 50


def test_edges_end_where_they_pass_the_camera():
    camera = Pinhole(np.diag([10.0, 10.0, 1.0]), np.eye(4), 8, 8)
    edges = visible_edges(upright([0, 0, 0], [2, 2, 10]), camera)
    lengthwise = np.abs(edges[:, 0] - edges[:, 1]).max(axis=1) > 100
    assert len(edges) == 8 and lengthwise.sum() == 4  # those of the far side, and four that come from behind
    assert np.allclose(np.abs(edges[~lengthwise]), 2)
    assert not len(visible_edges(upright([0, 0, -9], [2, 2, 10]), camera))


@pytest.mark.parametrize("off", [5e-4, -5e-4])
def test_a_pose_that_is_rounded_is_the_nearest_rotation(off, tmp_path):
    shots = [shoot(camera, THINGS[:3]) for camera in cameras()]
    rounded = [replace(shot, camera=copy.copy(shot.camera)) for shot in shots]
    for shot in rounded:
        pose = shot.camera.pose.copy()
        pose[:3, :3] *= 1 + off / 2
        object.__setattr__(shot.camera, "pose", pose)  # as it is written, which no camera is
    WRITERS["nerfstudio"](tmp_path / "room", rounded, THINGS[:3])
    (scene,) = read_scenes(tmp_path / "room")
    assert np.allclose(scene.views[0].camera.pose, shots[0].camera.pose, atol=1e-9)
    made = make(tmp_path / "room", tmp_path / "set", Making(tasks=("grounding_3d",), edits=("none",)))
    assert made.failed == () and made.questions["grounding_3d"]


def test_what_is_thinner_than_a_pixel_of_the_picture_gives_no_red_box(tmp_path):
    """Its depth has ten times as many pixels each way."""
    camera = cameras()[0]
    for name, x in (("room", -0.5), ("room-after", 0.02)):
        pole = Thing("pole", upright([x, 0, 0.5], [0.16, 0.16, 1.0]))
        WRITERS["nerfstudio"](tmp_path / "scenes" / name, [shot := shoot(camera, [pole])], [pole])
        small = Image.fromarray(shot.picture).resize((WIDTH // 12, HEIGHT // 12))
        save(tmp_path / "scenes" / name / "images" / "0.png", np.asarray(small))
        file = tmp_path / "scenes" / name / "transforms.json"
        values = json.loads(file.read_text())
        lens = {"fl_x": FOCAL / 12, "fl_y": FOCAL / 12, "cx": WIDTH / 24, "cy": HEIGHT / 24}
        values["frames"][0] |= {**lens, "w": WIDTH // 12, "h": HEIGHT // 12}
        file.write_text(json.dumps({**values, **({"state_of": "room"} if name != "room" else {})}))
    made = make(tmp_path / "scenes", tmp_path / "set", Making(tasks=("absolute_size",), edits=("move",)))
    assert made.failed == () and made.questions["absolute_size"] == 2
