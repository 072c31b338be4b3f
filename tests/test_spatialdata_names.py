"""Data sets of scenes with odd names and words, and sets that something else has written into."""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from joyimage.errors import JoyImageError
from joyimage.spatialdata import Making, inspect, make
from joyimage.spatialdata.inspecting import sheet
from joyimage.spatialdata.inspecting.contents import read_samples
from joyimage.spatialdata.making import Made
from tools.tiny import captures

pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are UTF-8 there")
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_scenes_whose_names_are_no_utf_8_are_used_or_named(tmp_path, format):
    captures.make(tmp_path / "scenes", 2, seed=3, size=96)
    for number, byte in enumerate((b"\xfd", b"\xff")):
        (tmp_path / "scenes" / f"scene{number:05d}").rename(os.fsdecode(os.fsencode(tmp_path / "scenes") + b"/" + byte))
    file = tmp_path / "scenes" / os.fsdecode(b"\xff") / "transforms.json"
    file.write_text("{")
    made = make(
        tmp_path / "scenes", tmp_path / "set", Making(tasks=("grounding_3d",), edits=("camera",), format=format)
    )
    assert (made.scenes, made.used) == (2, 1)
    ((name, reason),) = made.failed
    assert name == "\\udcff" and "no JSON" in reason
    assert {sample.scene for sample in read_samples(tmp_path / "set")} == {"\\udcfd"}
    assert inspect(tmp_path / "set").failed == made.failed


def test_a_sheet_shows_boxes_of_things_whose_words_have_two_lines(tmp_path):
    captures.make(tmp_path / "scenes", 1, seed=3, size=96)
    (file,) = (tmp_path / "scenes").glob("*/transforms.json")
    values = json.loads(file.read_text())
    for thing in values["objects"]:
        thing["category"] = f"two\n{thing['category']}"
    file.write_text(json.dumps(values))
    make(tmp_path / "scenes", tmp_path / "set", Making(tasks=("grounding_3d",), edits=("none",)))
    shown = Image.open(sheet(tmp_path / "set", tmp_path / "sheet.png", 3)).convert("RGB")
    assert (np.asarray(shown) == (0, 220, 0)).all(-1).any()  # a box


def test_a_picture_larger_than_any_costs_its_scene_alone(tmp_path):
    captures.make(tmp_path / "scenes", 2, seed=3, size=96)
    folder = tmp_path / "scenes" / "scene00000"
    picture = folder / "images" / "000.png"
    data = bytearray(picture.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)  # width and height in a PNG's header
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    picture.write_bytes(data)
    values = json.loads((folder / "transforms.json").read_text())
    del values["w"], values["h"]
    (folder / "transforms.json").write_text(json.dumps(values))
    made = make(tmp_path / "scenes", tmp_path / "set", Making(tasks=("none",), edits=("camera",)))
    ((name, reason),) = made.failed
    assert (name, made.used) == ("scene00000", 1) and "3600000000 pixels" in reason


@pytest.mark.parametrize("made", [5, {}, {"failed": [3]}])
def test_a_set_that_says_of_itself_what_none_does_is_refused(tmp_path, made):
    about = {"version": "1", "source": "x", "prepare": "none", "settings": {}, "made": made}
    (tmp_path / "data.json").write_text(json.dumps(about))
    with pytest.raises(JoyImageError, match="is no data set of"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    "told", [{"scenes": 5}, {"scenes": {"count": 1}}, {"files": {"a": 5}}, {"files": {"a": ["b", 1]}}, {"files": 3}]
)
def test_a_set_that_tells_other_files_and_scenes_than_any_does_is_refused(tmp_path, told):
    made = Made(0, 0, (), {}, {}, {}).as_dict()
    about = {
        "version": "1",
        "source": "x",
        "prepare": "none",
        "settings": {"tasks": [], "format": "jsonl"},
        "made": made,
    }
    (tmp_path / "data.json").write_text(json.dumps(about))
    assert inspect(tmp_path).lost == ()  # as of an older one
    (tmp_path / "data.json").write_text(json.dumps(about | told))
    with pytest.raises(JoyImageError, match="is no data set of"):
        inspect(tmp_path)
