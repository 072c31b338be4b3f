"""What is wrong with a scene's files is told by the file, the place in it and the field, and in words."""

from __future__ import annotations

import io
import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from scans import WRITERS, Thing, save, shoot

from joyimage.errors import JoyImageError, MissingFileError
from joyimage.spatialdata.cameras import Pinhole, looking_at
from joyimage.spatialdata.oriented import OrientedBox
from joyimage.spatialdata.readers import find_scenes, read_scenes, scene_places

WIDTH, HEIGHT = 40, 30
THINGS = (
    Thing("chair", OrientedBox.upright([0, 0, 0.5], [0.8, 0.8, 1])),
    Thing("table", OrientedBox.upright([1, 0.5, 0.3], [1, 0.6, 0.6], 0.4)),
)


@pytest.fixture
def room(tmp_path):
    """Writes a scene of two views in a format into a folder, which it returns."""

    def written(form: str):
        if form == "openspatial":
            pytest.importorskip("pyarrow")
        intrinsic = np.array([[36, 0, WIDTH / 2], [0, 36, HEIGHT / 2], [0, 0, 1]])
        poses = [looking_at(np.array(eye), np.array([0, 0, 0.4])) for eye in ([0, -3, 1.5], [2.5, -1, 1.2])]
        (tmp_path / "room").mkdir()
        shots = [shoot(Pinhole(intrinsic, pose, WIDTH, HEIGHT), THINGS) for pose in poses]
        WRITERS[form](tmp_path / "room", shots, THINGS)
        return tmp_path / "room"

    return written


def refused(folder, message: str, sense=False) -> str:
    with pytest.raises(JoyImageError, match=message) as caught:
        for scene in read_scenes(folder):
            for view in scene.views if sense else ():
                view.picture()
                view.sensed()
    told = str(caught.value)
    assert str(folder) in told and not re.search(r"Error\(|\[Errno|numpy|ndarray", told)
    return told


# -- transforms.json --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("transform_matrix", None, "transform_matrix is null; it must be 4 x 4 or 3 x 4 numbers in lists"),
     ("transform_matrix", [[1, 0], [0, 1]], r"is the list \[\[1, 0\], \[0, 1\]\] of 2 x 2; it must be 4 x 4 or"),
     ("transform_matrix", [[1, 2], [3]], "of 2, each of another length; it must be 4 x 4"),
     ("transform_matrix", [["a"] * 4] * 4, "of 4 x 4; it must be 4 x 4 or 3 x 4 numbers"),
     ("transform_matrix", (2 * np.eye(4)).tolist(), "a camera's pose is"),
     ("transform_matrix", [[float("nan")] * 4] * 4, "each finite"),
     ("depth_file_path", 3, "depth_file_path is 3; it must be the path of a file within"),
     ("depth_file_path", "/etc/passwd", "is '/etc/passwd'; it must be the path of a file within its file's folder"),
     ("depth_file_path", "a/../../b.png", "is 'a/../../b.png'; it must be the path of a file within its file's folder"),
     ("mask_path", "C:/a.png", "is 'C:/a.png'; it must be the path of a file within its file's folder"),
     ("instances_path", "a\0.png", "must be the path of a file within"), ("instances_path", ".", "must be the path")],
)  # fmt: skip
def test_a_field_of_a_frame_is_told_by_the_frame(room, field, value, message):
    file = room("nerfstudio") / "transforms.json"
    values = json.loads(file.read_text())
    values["frames"][1][field] = value
    file.write_text(json.dumps(values))
    assert refused(file.parent, message).startswith(f"{file}, frames[1] (images/1.png)")


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"{", "is no JSON: it breaks off or goes wrong in line 1, column 2"), (b"", "line 1, column 1"),
     (b'{"a": "\xff"}', "byte 8 is no UTF-8 text"), (b"[" * 100_000, "lie too deep"),
     (b"1" * 5000, "thousands of digits"),
     (b"[]", r"is the list \[\] of 0; it must be a record"), ('{"frames": 1}'.encode("utf-16"), "byte 1 is no UTF-8")],
)  # fmt: skip
def test_what_is_no_json_is_told(room, data, message):
    folder = room("nerfstudio")
    (folder / "transforms.json").write_bytes(data)
    refused(folder, message)


# -- ScanNet, ARKitScenes ---------------------------------------------------------------------------------------------


def change(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [("pose/0.txt", "1 0 0\n0 1 0", r"0.txt has 2 lines of 3 numbers; it must have 4 x 4"),
     ("pose/0.txt", "1 0 0 0\n0 x 0 0", r"0.txt: line 2 is '0 x 0 0'; it must be numbers"),
     ("pose/0.txt", "1 0 0 0\n0 1 0", r"0.txt: line 2 has 3 numbers and the first has 4"),
     ("pose/0.txt", "", r"0.txt has 0 lines of 0 numbers"),
     ("pose/0.txt", "2 0 0 0\n0 2 0 0\n0 0 2 0\n0 0 0 1", r"0.txt: a camera's pose is a rotation"),
     ("pose/0.txt", "1 0 0 1e200\n0 1 0 0\n0 0 1 0\n0 0 0 1", r"0.txt has numbers that are not finite or beyond"),
     ("pose/0.txt", None, r"there is no .*pose/0.txt"),
     ("intrinsic/intrinsic_color.txt", "0 0 5\n0 9 5\n0 0 1", "color.txt must have focal lengths above 0.001"),
     ("intrinsic/intrinsic_depth.txt", "9 0 nan\n0 9 5\n0 0 1", "depth.txt has numbers that are not finite"),
     ("room.txt", "axisAlignment = 1 2 x", "room.txt: axisAlignment is '1 2 x'; it must be 16 finite numbers"),
     ("room.aggregation.json", '{"segGroups": [{"label": "a"}]}', r"segGroups\[0\]: objectId is missing; it must be"),
     ("room.aggregation.json", '{"segGroups": [{"objectId": 0, "label": 5}]}', r"segGroups\[0\]: label is 5; it must"),
     ("room.aggregation.json", '{"segGroups": [{"objectId": -1, "label": "a"}]}', "objectId is -1; it must be a whole"),
     ("color/0.jpg", "nothing", r"color/0.jpg cannot be read: it is no picture")],
)  # fmt: skip
def test_what_scannets_files_say_wrong_is_told(room, file, text, message):
    folder = room("scannet")
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    refused(folder, message)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [("lowres_wide.traj", "100 0 0 0 0 0", "lowres_wide.traj must have 7 finite numbers in each line: .*; it has 6"),
     ("lowres_wide.traj", "100 0 0 nan 0 0 0", "7 finite numbers in each line: .*not all of them finite"),
     ("lowres_wide.traj", "", "must have 7 finite numbers"),
     ("lowres_wide_intrinsics/room_100.000.pincam", "nan 30 36 36 20 15", "pincam has numbers that are not finite"),
     ("lowres_wide_intrinsics/room_100.000.pincam", "40.5 30 36 36 20 15", "pincam begins with 40.5 and 30; it must"),
     ("lowres_wide_intrinsics/room_100.000.pincam", "40 30 -36 36 20 15", "pincam must have focal lengths"),
     ("lowres_wide", None, "there is no folder .*lowres_wide, which has the scene's pictures"),
     ("../room_3dod_annotation.json", '{"data": [{}]}', r"data\[0\]: label is missing; it must be text"),
     ("../room_3dod_annotation.json", '{"data": [{"label": "a"}]}', r"data\[0\]: segments is missing; it must be"),
     ("../room_3dod_annotation.json",
      '{"data": [{"label": "a", "segments": {"obbAligned": {"normalizedAxes": [1, 2]}}}]}',
      r"data\[0\], segments, obbAligned: normalizedAxes is the list \[1, 2\] of 2; it must be 9 or 3 x 3 numbers")],
)  # fmt: skip
def test_what_arkitscenes_files_say_wrong_is_told(room, file, text, message):
    folder = room("arkitscenes")
    path = folder / "room_frames" / file
    if text is None:
        path.rename(folder / "elsewhere")
    else:
        path.write_text(text)
    refused(folder, message)


# -- OpenSpatial ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"obj_tags": ["chair"]}, r"room: bboxes_3d_world_coords is the list .* of 2 x 9; it must be a list of 1, as"),
     ({"obj_tags": ["chair", None]}, "object 2: obj_tags is null; it must be text"),
     ({"bboxes_3d_world_coords": [[1.0] * 9, [1.0] * 8]}, "object 2: bboxes_3d_world_coords is the list .* must be 9"),
     ({"bboxes_3d_world_coords": [[1.0] * 9, [float("nan")] * 9]}, "object 2: bboxes_3d_world_coords is .*each finite"),
     ({"masks": ["masks/0_1.png"]}, "masks is the list .* of 1; it must be a list of 2, as obj_tags is, or empty"),
     ({"masks": ["masks/0_1.png", "/etc/passwd"]}, "object 2: masks is '/etc/passwd'; it must be the path of"),
     ({"pose": "../pose0.txt"}, "pose is '../pose0.txt'; it must be the path of a file within the folder of"),
     ({"pose": "none.txt"}, "pose is 'none.txt', which is in neither the folder of rows.parquet nor one above"),
     ({"pose": "x" * 300}, "pose is 'xxx.*, which is in neither"),
     ({"depth_scale": 0}, "depth_scale is 0; it must be a number above 0"),
     ({"image": None}, "row 1, .* image is null"),
     ({"image": {"bytes": b"no", "path": None}}, "row 1, .* the picture in the table cannot be read")],
)  # fmt: skip
def test_a_column_of_a_row_is_told_by_the_row(room, changes, message):
    import pyarrow
    from pyarrow import parquet

    folder = room("openspatial")
    first, second = parquet.read_table(folder / "rows.parquet").to_pylist()
    other = {**first, "scene_id": "other"}
    rows = [other, {**second, **changes, "scene_id": "room"}] if "image" not in changes else [{**second, **changes}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    *others, last = find_scenes(scene_places(folder))
    with pytest.raises(JoyImageError, match=message) as caught:
        last.read()
    assert str(folder / "rows.parquet") in str(caught.value)
    assert [found.read().name for found in others] == ["other"] * (len(rows) - 1)


def test_a_row_of_a_scene_with_lists_of_different_lengths_costs_that_scene_alone(room):
    import pyarrow
    from pyarrow import parquet

    folder = room("openspatial")
    rows = parquet.read_table(folder / "rows.parquet").to_pylist()
    listed = {
        key: [row[key] for row in rows] for key in rows[0] if key not in ("scene_id", "depth_scale", "is_metric_depth")
    }
    uneven = {**listed, "pose": listed["pose"][:1], "scene_id": "uneven"}
    parquet.write_table(pyarrow.Table.from_pylist([uneven, {**listed, "scene_id": "even"}]), folder / "rows.parquet")
    first, second = find_scenes(scene_places(folder))
    with pytest.raises(JoyImageError, match=r"row 1, scene uneven: pose is the list .* must be a list of 2, one"):
        first.read()
    assert len(second.read().views) == 2


# -- pictures, depth and masks ----------------------------------------------------------------------------------------


def png(array: np.ndarray, form: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.fromarray(array).save(held, form)
    return held.getvalue()


def npy(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array, allow_pickle=True)
    return held.getvalue()


def grey(width: int = WIDTH, height: int = HEIGHT, kind=np.uint16) -> np.ndarray:
    return np.full((height, width), 200, dtype=kind)


@pytest.mark.parametrize(
    ("what", "data", "message"),
    [("depth", png(grey(WIDTH, HEIGHT // 2)), "depth .*0.png of 40x15 pixels cannot show what its picture of 40x30"),
     ("depth", png(grey(HEIGHT, WIDTH)), "depth .*0.png of 30x40 pixels cannot show .* another shape"),
     ("depth", png(grey(kind=np.uint8)), "0.png, depth, has numbers of type uint8, and nothing says their unit"),
     ("depth", png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), "0.png, depth, must be one channel of numbers, .*40x30x3"),
     ("depth", png(grey(kind=np.float32), "TIFF"), "depth, has numbers of type float32, and nothing says their unit"),
     ("depth", png(grey())[:60], "0.png cannot be read: it is damaged or cut short"),
     ("depth", b"", "0.png cannot be read: it is no picture"), ("depth", None, "there is no .*depth/0.png"),
     ("masks", png(grey(WIDTH, 10, np.uint8)), "masks .*0.png of 40x10 pixels cannot show what its picture"),
     ("masks", png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), "0.png, masks, must be one channel of objects' numbers"),
     ("masks", png(np.full((HEIGHT, WIDTH), 0.5, np.float32), "TIFF"), "masks, must have whole numbers of objects"),
     ("images", png(np.zeros((15, 40, 3), np.uint8)), "its picture .*0.png has 40x15 pixels, and its camera 40x30"),
     ("images", png(np.zeros((HEIGHT, WIDTH, 3), np.uint8))[:50], "images/0.png cannot be read: it is damaged or cut")],
)  # fmt: skip
def test_what_pictures_depth_and_masks_are_not_is_told(room, what, data, message):
    folder = room("nerfstudio")
    file = folder / what / "0.png"
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    assert refused(folder, message, sense=True).startswith("view 0: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [(npy(grey(kind=np.float32)), "has numbers of type float32, and nothing says"),
     (npy(np.array(["a"])), "must be one channel"), (npy(grey())[:200], "is no array that can be"),
     (npy(np.full((HEIGHT, WIDTH), None)), "is no array that can be read"),
     (npy(grey()).replace(b"(30, 40)", b"(3000000000000, 40)")[:400], "is no array that can be read"),
     (npy(grey().astype(complex)), "must be one channel of numbers, and is of 40x30 and type complex"),
     (b"", "is no array")],
)  # fmt: skip
def test_what_stored_depth_is_not_is_told(room, data, message):
    folder = room("nerfstudio")
    change(folder / "transforms.json", "depth/0.png", "depth/0.npy")
    (folder / "depth" / "0.npy").write_bytes(data)
    refused(folder, message, sense=True)


@pytest.mark.parametrize(
    ("unit", "array"),
    [(1, np.full((HEIGHT, WIDTH), 2, np.float32)), (0.01, grey(kind=np.uint8)), (None, grey().astype(np.uint16) * 10)],
)
@pytest.mark.parametrize("shape", [(WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT), (13, 10), (WIDTH // 2, HEIGHT // 2)])
def test_depth_of_any_resolution_and_unit_that_is_said_is_read(room, unit, array, shape):
    folder = room("nerfstudio")
    values = json.loads((folder / "transforms.json").read_text())
    values["frames"][0]["depth_file_path"] = "depth/0.npy"
    values |= {} if unit is None else {"depth_unit_scale_factor": unit}
    (folder / "transforms.json").write_text(json.dumps(values))
    np.save(folder / "depth" / "0.npy", np.full(shape[::-1], array[0, 0], array.dtype))
    sensed = next(read_scenes(folder)).views[0].sensed()
    assert sensed.depth.shape == sensed.instances.shape == shape[::-1] and np.allclose(sensed.depth, 2)


def test_depth_that_is_not_a_number_infinite_or_below_zero_is_unknown(room):
    folder = room("nerfstudio")
    change(folder / "transforms.json", "depth/0.png", "depth/0.npy")
    change(folder / "transforms.json", '"metric"', '"depth_unit_scale_factor": 1, "metric"')
    depth = np.full((HEIGHT, WIDTH), 2.0)
    depth[0, :5] = np.nan, np.inf, -np.inf, -1, 1e300
    np.save(folder / "depth" / "0.npy", depth)
    found = next(read_scenes(folder)).views[0].sensed().depth
    assert not found[0, :5].any() and (found[0, 5:] == 2).all() and (found[1:] == 2).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_waited_for_by_nobody(room):
    folder = room("nerfstudio")
    (folder / "depth" / "0.png").unlink()
    os.mkfifo(folder / "depth" / "0.png")
    refused(folder, "0.png is no regular file", sense=True)


def test_the_opacity_of_a_mask_is_not_its_object(room):
    folder = room("openspatial")
    mask = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    mask[..., 3] = 255
    mask[:5, :5, :3] = 255
    save(folder / "masks" / "0_1.png", mask)
    (folder / "masks" / "0_2.png").unlink()
    save(folder / "masks" / "0_2.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    numbers = next(read_scenes(folder)).views[0].sensed().instances
    assert (numbers[:5, :5] == 1).all() and numbers.sum() == 25


def test_missing_files_are_missing_file_errors(room):
    folder = room("scannet")
    (folder / "pose" / "1.txt").unlink()
    with pytest.raises(MissingFileError):
        list(read_scenes(folder))
