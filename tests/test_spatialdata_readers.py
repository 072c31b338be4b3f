"""Scenes written in each format as its data sets are, and read back."""

import codecs
import io
import json
import math

import numpy as np
import pytest
from PIL import Image
from scans import save, save_matrix, save_text, square, turn_vector

from joyimage.errors import JoyImageError, MissingFileError
from joyimage.spatialdata.cameras import OPENGL, Pinhole, looking_at
from joyimage.spatialdata.oriented import OrientedBox
from joyimage.spatialdata.overlap import iou
from joyimage.spatialdata.readers import find_scenes, openspatial, read_scenes, scene_places
from joyimage.spatialdata.scenes import Scene, SceneObject
from tools.tiny import captures, scenes

WIDTH, HEIGHT = 40, 30
FOCAL = 36.0
BOX = OrientedBox.from_numbers([0.2, 0.1, 0.4, 1, 0.6, 0.8, 0.5, 0.1, -0.2])
EYES = np.array([[0, -3, 1.5], [2.5, -1, 1.2]])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    captures.make(folder, 2, seed=3, size=48)
    return folder


def cameras(shift=0.5):
    """Two, with the principal point in the picture's middle; `shift`: where the format has a pixel's middle."""
    intrinsic = np.array([[FOCAL, 0, WIDTH / 2 - 0.5 + shift], [0, FOCAL, HEIGHT / 2 - 0.5 + shift], [0, 0, 1]])
    return [Pinhole(intrinsic, looking_at(eye, np.array([0, 0, 0.4])), WIDTH, HEIGHT) for eye in EYES]


def pictures(i):
    """A picture, depth in millimetres with one number in each row, and masks of two objects."""
    depth = np.repeat(1000 + np.arange(HEIGHT, dtype=np.uint16)[:, None] + 100 * i, WIDTH, axis=1)
    masks = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    masks[5:10, 5:10], masks[15:20, 10:30] = 1, 2
    return np.full((HEIGHT, WIDTH, 3), 50 + i, dtype=np.uint8), depth, masks


def check_views(scene: Scene, masked=True):
    """Cameras, pictures, depth and masks are those that were written."""
    assert len(scene.views) == 2
    for i, (view, camera) in enumerate(zip(scene.views, cameras(), strict=True)):
        assert np.allclose(view.camera.pose, camera.pose, atol=1e-6)
        assert np.allclose(view.camera.intrinsic, camera.intrinsic)
        assert np.abs(np.asarray(view.picture()).astype(int) - 50 - i).max() <= 1
        sensed = view.sensed()
        _, depth, masks = pictures(i)
        assert np.allclose(sensed.depth, depth / 1000, atol=1e-6)
        assert (sensed.instances == masks).all() if masked else sensed.instances is None


def test_drawn_scenes_are_read_with_their_truth(drawn):
    found = list(read_scenes(drawn))
    assert [scene.name for scene in found] == ["scene00000", "scene00001"]
    for scene in found:
        assert scene.metric and scene.lifted and 4 <= len(scene.views) <= 8
        sensed = [view.sensed() for view in scene.views]
        shown = np.unique([number for view in sensed for number in np.unique(view.instances)])
        assert set(shown) - {0} <= {thing.number for thing in scene.objects}
        for thing in scene.objects:
            points = np.concatenate([v.camera.points(v.depth, v.instances == thing.number) for v in sensed])
            assert len(points) > 100 and thing.box.contains(points, margin=0.01).all()
            assert thing.description.endswith(thing.category) and thing.box.stands
        assert {thing.category for thing in scene.objects if thing.faces} <= {"car"}


def test_the_ground_of_drawn_scenes_lies_at_zero(drawn):
    for scene in read_scenes(drawn):
        for view in (view.sensed() for view in scene.views):
            ground = view.camera.points(view.depth, view.instances == 0)
            assert len(ground) and np.abs(ground[:, 2]).max() < 0.005


def test_drawn_cameras_stand_where_the_scene_has_them():
    camera = np.array([[30.0, 40.0, 6.0]])
    (pose,) = captures.poses(camera)
    eye, _ = scenes.axes(camera)
    assert np.allclose(pose, looking_at(eye[0], scenes.LOOK_AT))


def nerfstudio_folder(folder, **extra):
    frames = []
    for i, camera in enumerate(cameras()):
        picture, depth, masks = pictures(i)
        for name, array in (("images", picture), ("depth", depth), ("masks", masks)):
            save(folder / name / f"{i}.png", array)
        names = {"depth_file_path": f"depth/{i}.png", "instances_path": f"masks/{i}.png"}
        frames.append({"file_path": f"images/{i}.png", "transform_matrix": (camera.pose @ OPENGL).tolist(), **names})
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}
    values = {**lens, "camera_model": "OPENCV", "k1": 0.0, "frames": frames, **extra}
    (folder / "transforms.json").write_text(json.dumps(values))
    return values


def test_nerfstudio(tmp_path):
    objects = [{"number": 1, "category": "chair", "box": list(BOX.numbers)}, {"number": 2, "category": "table"}]
    nerfstudio_folder(tmp_path, objects=objects)
    (scene,) = read_scenes(tmp_path)
    check_views(scene)
    assert not scene.metric and not scene.lifted
    assert iou(scene.objects[0].box, BOX) > 0.999 and scene.objects[1].box is None


def test_nerfstudio_can_name_the_scene_that_it_is_another_state_of(tmp_path):
    nerfstudio_folder(tmp_path, state_of="room")
    (scene,) = read_scenes(tmp_path)
    assert scene.state_of == "room"
    nerfstudio_folder(tmp_path, state_of=5)
    with pytest.raises(JoyImageError, match="state_of is 5"):
        list(read_scenes(tmp_path))


def test_of_many_views_some_are_taken_evenly(tmp_path):
    scene = Scene("room", tuple(range(10)))
    assert scene.with_views(4).views == (0, 2, 5, 7) and scene.with_views(10).views == scene.views
    assert scene.with_views(20).views == scene.views


def test_nerfstudio_without_size_or_focal_length_and_with_a_mask_of_what_to_use(tmp_path):
    values = nerfstudio_folder(tmp_path)
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        del values[key]
    values["camera_angle_x"] = 2 * np.arctan(WIDTH / 2 / FOCAL)
    used = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    used[:10] = 0
    save(tmp_path / "used.png", used)
    values["frames"][0]["mask_path"] = "used.png"
    values["frames"][0]["transform_matrix"] = values["frames"][0]["transform_matrix"][:3]
    (tmp_path / "transforms.json").write_text(json.dumps(values))
    (scene,) = read_scenes(tmp_path / "transforms.json")
    assert np.allclose(scene.views[0].camera.intrinsic, cameras()[0].intrinsic)
    depth = scene.views[0].sensed().depth
    assert (depth[:10] == 0).all() and (depth[10:] > 0).all() and (scene.views[1].sensed().depth > 0).all()


ONE = {"number": 1, "category": "a"}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"k1": 0.1}, r"frames\[0\] \(images/0.png\): its lens bends lines \(OPENCV {'k1': 0.1}\); undistort"),
     ({"camera_model": "OPENCV_FISHEYE"}, r"frames\[0\] .* lens bends lines"), ({"k1": math.nan}, "bends lines"),
     ({"frames": []}, "no frames"), ({"frames": [{}]}, r"frames\[0\]: file_path is missing; it must be the path"),
     ({"frames": 3}, "frames is 3; it must be a list"),
     ({"frames": [[]]}, r"frames\[0\] is the list \[\] of 0; it must be a record"),
     ({"objects": [{"number": 1}]}, r"objects\[0\]: category is missing; it must be text"),
     ({"objects": [ONE] * 2}, "transforms.json: scene .* two objects have one number"),
     ({"cx": 10**400}, r"json: cx is 1000.*; it must be a number above -1e\+09 and up to 1e\+09"),
     ({"cx": math.inf}, "cx is inf; it must be a number"), ({"fl_x": 0}, "fl_x is 0; it must be a number above 0.001"),
     ({"fl_x": "36"}, "fl_x is '36'; it must be a number"), ({"w": 0}, "w is 0; it must be a whole number from 1 to"),
     ({"w": 40.5}, "w is 40.5; it must be a whole"), ({"h": None}, "h is null; it must be a whole number"),
     ({"metric": "no"}, "metric is 'no'; it must be true or false"),
     ({"state_of": ["room"]}, r"state_of is the list \['room'\] of 1; it must be text"),
     ({"objects": [{**ONE, "faces": "no"}]}, r"objects\[0\]: faces is 'no'; it must be true or false"),
     ({"objects": [{**ONE, "category": "\ud800"}]}, r"objects\[0\]: category .* no character"),
     ({"objects": [{**ONE, "category": None}]}, r"objects\[0\]: category is null; it must be text"),
     ({"objects": [{**ONE, "category": " \n"}]}, r"objects\[0\]: category is ' \\n'; it must be text that is not"),
     ({"objects": [{**ONE, "description": 5}]}, r"objects\[0\]: description is 5; it must be text"),
     ({"objects": [{**ONE, "number": 0}]}, r"objects\[0\]: number is 0; it must be a whole number from 1 to 2"),
     ({"objects": [{**ONE, "box": [1] * 8}]}, r"objects\[0\]: box is the list \[1, .*; it must be 9 numbers in lists"),
     ({"objects": [{**ONE, "box": [1, "2", *[1] * 7]}]}, r"objects\[0\]: box is the list .*; it must be 9 numbers"),
     ({"objects": [{**ONE, "box": [math.nan] * 9}]}, r"objects\[0\]: box is .* each finite and up to 1e\+09"),
     ({"objects": [{**ONE, "box": [1e300] * 9}]}, r"objects\[0\]: box is .* each finite and up to 1e\+09"),
     ({"objects": [{**ONE, "box": [0, 0, 0, -1, 1, 1, 0, 0, 0]}]}, r"objects\[0\]: box: a box's extents are 0 or more"),
     *(({"depth_unit_scale_factor": unit}, "a number above 0") for unit in (0, -1, math.nan, None, "mm"))],
)  # fmt: skip
def test_nerfstudio_says_what_it_cannot_use(tmp_path, change, message):
    nerfstudio_folder(tmp_path, **change)
    with pytest.raises(JoyImageError, match=message) as caught:
        list(read_scenes(tmp_path))
    assert str(caught.value).startswith(str(tmp_path / "transforms.json"))


def test_a_mark_of_byte_order_before_the_json_is_passed_over(tmp_path):
    nerfstudio_folder(tmp_path)
    file = tmp_path / "transforms.json"
    file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    (scene,) = read_scenes(tmp_path)
    check_views(scene)


def test_a_broken_json_is_named(tmp_path):
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(JoyImageError, match="no JSON"):
        list(read_scenes(tmp_path))


def test_files_that_are_missing_or_of_another_size_are_named_when_they_are_read(tmp_path):
    nerfstudio_folder(tmp_path)
    (scene,) = read_scenes(tmp_path)
    (tmp_path / "depth" / "0.png").unlink()
    with pytest.raises(MissingFileError, match=r"view 0: there is no .*depth"):
        scene.views[0].sensed()
    save(tmp_path / "images" / "0.png", np.zeros((5, 5, 3), np.uint8))
    with pytest.raises(JoyImageError, match="5x5 pixels"):
        scene.views[0].picture()
    (tmp_path / "images" / "1.png").write_bytes(b"nothing")
    with pytest.raises(JoyImageError, match="cannot be read"):
        scene.views[1].picture()


def scannet_folder(folder):
    """The colour picture is twice as large as depth, which has a lens of its own, half a pixel beside."""
    aligned = np.eye(4)
    aligned[:3, 3] = 0.5, 0, 0
    save_text(folder / "scene0000_00.txt", f"x = 1\naxisAlignment = {' '.join(map(str, aligned.ravel()))} \n")
    for i, camera in enumerate(cameras(0)):
        picture, depth, masks = pictures(i)
        save(folder / "color" / f"{9 + i}.jpg", np.kron(picture, np.ones((2, 2, 1), np.uint8)))
        save(folder / "depth" / f"{9 + i}.png", depth)
        save(folder / "instance-filt" / f"{9 + i}.png", np.kron(masks, np.ones((2, 2), np.uint8)))
        save_matrix(folder / "pose" / f"{9 + i}.txt", np.linalg.inv(aligned) @ camera.pose)
    save(folder / "color" / "11.jpg", picture)
    save_text(folder / "pose" / "11.txt", "\n".join(["-inf -inf -inf -inf"] * 4))
    intrinsic = cameras(0)[0].intrinsic
    half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # from a pixel's corner to its middle
    large = np.diag([2, 2, 1]) @ (intrinsic + half) - half
    save_matrix(folder / "intrinsic" / "intrinsic_color.txt", square(large))
    save_matrix(folder / "intrinsic" / "intrinsic_depth.txt", square(intrinsic))
    groups = [{"objectId": 0, "label": "chair"}, {"objectId": 1, "label": "table"}]
    save_text(folder / "scene0000_00.aggregation.json", json.dumps({"segGroups": groups}))


def test_scannet_with_larger_pictures_than_depth(tmp_path):
    folder = tmp_path / "scene0000_00"
    scannet_folder(folder)
    (scene,) = read_scenes(tmp_path)
    assert scene.metric and [view.name for view in scene.views] == ["9", "10"]  # 11 has lost its pose
    assert [(thing.number, thing.category) for thing in scene.objects] == [(1, "chair"), (2, "table")]
    for i, (view, camera) in enumerate(zip(scene.views, cameras(), strict=True)):
        assert view.picture().size == (2 * WIDTH, 2 * HEIGHT)
        assert np.allclose(view.camera.pose, camera.pose, atol=1e-6)
        sensed = view.sensed()
        assert np.allclose(sensed.camera.intrinsic, camera.intrinsic, atol=1e-6)
        assert (sensed.instances == pictures(i)[2]).all()


def test_scannet_with_all_files_side_by_side(tmp_path):
    for i, camera in enumerate(cameras(0)):
        picture, depth, _ = pictures(i)
        save(tmp_path / f"{i:05d}.jpg", picture)
        save(tmp_path / f"{i:05d}.png", depth)
        save_matrix(tmp_path / f"{i:05d}.txt", camera.pose)
    save_matrix(tmp_path / "intrinsic.txt", square(cameras(0)[0].intrinsic))
    (scene,) = read_scenes(tmp_path)
    check_views(scene, masked=False)


def arkit_folder(folder):
    frames = folder / f"{folder.name}_frames"
    lines = []
    for i, camera in enumerate(cameras(0)):
        picture, depth, _ = pictures(i)
        name = f"{folder.name}_{100 + 0.1 * i:.3f}"
        save(frames / "lowres_wide" / f"{name}.png", picture)
        save(frames / "lowres_depth" / f"{name}.png", depth)
        lens = [WIDTH, HEIGHT, FOCAL, FOCAL, *camera.intrinsic[:2, 2]]
        late = f"{folder.name}_{100.001 + 0.1 * i:.3f}"
        save_text(frames / "lowres_wide_intrinsics" / f"{late}.pincam", " ".join(map(str, lens)))
        inverse = np.linalg.inv(camera.pose)
        numbers = [100.002 + 0.1 * i, *turn_vector(inverse[:3, :3]), *inverse[:3, 3]]
        lines.append(" ".join(f"{number:.9f}" for number in numbers))
    save(frames / "lowres_wide" / f"{folder.name}_200.000.png", picture)
    save_text(frames / "lowres_wide.traj", "\n".join(lines))
    box = {"centroid": BOX.centre.tolist(), "axesLengths": BOX.size.tolist()}
    box["normalizedAxes"] = BOX.rotation.T.ravel().tolist()
    data = {"skipped": False, "data": [{"label": "chair", "uid": "a", "segments": {"obbAligned": box}}]}
    save_text(folder / f"{folder.name}_3dod_annotation.json", json.dumps(data))


def test_arkitscenes(tmp_path):
    arkit_folder(tmp_path / "40753679")
    (scene,) = read_scenes(tmp_path)
    check_views(scene, masked=False)  # the picture of another moment is left out
    (chair,) = scene.objects
    assert chair.category == "chair" and iou(chair.box, BOX) > 0.999


def openspatial_rows(folder, masks=True):
    """Rows of two pictures; the second object is in the second picture alone."""
    other = OrientedBox.upright([1, 1, 1], [1, 1, 1], 0.3)
    rows = []
    for i, camera in enumerate(cameras(0)):
        picture, depth, numbers = pictures(i)
        save(folder / "rgb" / f"{i}.png", picture)
        np.save(folder / f"depth{i}.npy", depth.astype(np.float32) * 4)
        save_matrix(folder / f"pose{i}.txt", camera.pose)
        save_matrix(folder / "intrinsic.txt", square(camera.intrinsic))
        for number in (1, 2):
            save(folder / "masks" / f"{i}_{number}.png", np.where(numbers == number, 255, 0).astype(np.uint8))
        things = [("table", other, 2), ("chair", BOX, 1)] if i else [("chair", BOX, 1)]
        row = {
            "scene_id": "room", "id": f"room-{i}", "image": f"rgb/{i}.png", "depth_map": f"depth{i}.npy",
            "pose": f"pose{i}.txt", "intrinsic": "intrinsic.txt", "depth_scale": 4000, "is_metric_depth": True,
            "obj_tags": [tag for tag, _, _ in things],
            "bboxes_3d_world_coords": [list(box.numbers) for _, box, _ in things],
        }  # fmt: skip
        rows.append({**row, "masks": [f"masks/{i}_{number}.png" for *_, number in things]} if masks else row)
    return rows


def write_parquet(path, rows):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(rows), path)


def check_openspatial(scene):
    assert scene.name == "room" and scene.metric
    assert [(thing.number, thing.category) for thing in scene.objects] == [(1, "chair"), (2, "table")]
    assert iou(scene.objects[0].box, BOX) > 0.999
    for i, view in enumerate(scene.views):
        sensed = view.sensed()
        _, depth, masks = pictures(i)
        assert np.allclose(sensed.depth, depth / 1000)
        assert np.allclose(sensed.camera.intrinsic, cameras()[i].intrinsic)
        assert (sensed.instances == np.where(masks == 2, 2 * i, masks)).all()


def test_openspatials_rows_of_pictures_are_brought_together(tmp_path):
    (tmp_path / "rows").mkdir()
    write_parquet(tmp_path / "rows" / "data.parquet", openspatial_rows(tmp_path))
    (scene,) = read_scenes(tmp_path / "rows")
    check_openspatial(scene)


def test_openspatials_rows_of_scenes(tmp_path):
    rows = openspatial_rows(tmp_path)
    listed = {key: [row[key] for row in rows] for key in rows[0] if key not in ("scene_id", "depth_scale")}
    del listed["is_metric_depth"]
    whole = {**listed, "scene_id": "room", "depth_scale": 4000, "is_metric_depth": True}
    write_parquet(tmp_path / "data.parquet", [whole, {**whole, "scene_id": "other"}])
    room, other = read_scenes(tmp_path / "data.parquet")
    check_openspatial(room)
    assert other.name == "other" and len(other.views) == 2


def test_openspatials_pictures_as_bytes_and_the_order_that_its_code_turns_in(tmp_path):
    rows = openspatial_rows(tmp_path, masks=False)
    for i, row in enumerate(rows):
        file = io.BytesIO()
        Image.fromarray(pictures(i)[0]).save(file, "png")
        row["image"] = {"bytes": file.getvalue(), "path": "gone.png"}
    write_parquet(tmp_path / "data.parquet", rows)
    (scene,) = openspatial.read(tmp_path / "data.parquet", order="zxy")
    assert np.asarray(scene.views[1].picture()).max() == 51 and scene.views[0].sensed().instances is None
    assert 0.3 < iou(scene.objects[0].box, BOX) < 0.95


def test_a_scene_that_cannot_be_read_leaves_the_others_of_its_file(tmp_path):
    rows = openspatial_rows(tmp_path)
    broken = [{**row, "scene_id": "broken", "depth_map": "none.npy"} for row in rows]
    write_parquet(tmp_path / "data.parquet", [*broken, *rows])
    first, second = find_scenes(scene_places(tmp_path / "data.parquet"))
    assert first.name == "broken"
    with pytest.raises(MissingFileError, match=r"none\.npy"):
        first.read()
    check_openspatial(second.read())
    (tmp_path / "other.parquet").write_bytes(b"none")
    *_, last = find_scenes(scene_places(tmp_path))  # the folder holds both files
    assert last.name == "other.parquet"
    with pytest.raises(JoyImageError, match="no Parquet"):
        last.read()


def test_openspatial_says_what_it_cannot_use(tmp_path):
    rows = openspatial_rows(tmp_path)
    for row in rows:
        del row["obj_tags"]
    write_parquet(tmp_path / "data.parquet", rows)
    with pytest.raises(JoyImageError, match="no column obj_tags"):
        list(read_scenes(tmp_path))
    rows = openspatial_rows(tmp_path)
    (tmp_path / "pose1.txt").unlink()
    write_parquet(tmp_path / "data.parquet", rows)
    with pytest.raises(MissingFileError, match="pose1"):
        list(read_scenes(tmp_path))
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(JoyImageError, match="no Parquet"):
        list(read_scenes(tmp_path))


def test_what_holds_no_scenes(tmp_path):
    with pytest.raises(JoyImageError, match="neither is a scene nor holds scenes"):
        list(read_scenes(tmp_path))
    with pytest.raises(MissingFileError):
        list(read_scenes(tmp_path / "none"))
    with pytest.raises(JoyImageError, match="no format"):
        list(read_scenes(tmp_path, "colmap"))


def test_objects_of_one_scene_have_numbers_of_their_own():
    with pytest.raises(JoyImageError, match="one number"):
        Scene("room", (), (SceneObject(1, "chair"), SceneObject(1, "table")))
