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


EMPTY = Made(0, 0, (), {}, {}, {}).as_dict()
TOLD = {"version": "7", "source": "x", "prepare": "none", "settings": {"tasks": [], "format": "jsonl"}, "made": EMPTY}


@pytest.mark.parametrize(
    "told",
    [
        {"made": 5},
        {"made": {}},
        {"made": {"failed": [3]}},
        {"made": EMPTY | {"questions": 3}},
        {"made": EMPTY | {"pairs": None}},
        {"made": EMPTY | {"unnamed": [1]}},
        {"scenes": 5},
        {"scenes": {"count": 1}},
        {"files": 3},
        {"files": {"a": 5}},
        {"files": {"a": ["b", 1]}},
    ],
)
def test_a_set_that_says_of_itself_what_none_does_is_refused(tmp_path, told):
    (tmp_path / "data.json").write_text(json.dumps(TOLD))
    assert inspect(tmp_path).lost == ()  # as of one that says nothing of its files
    (tmp_path / "data.json").write_text(json.dumps(TOLD | told))
    with pytest.raises(JoyImageError, match="is no data set of"):
        inspect(tmp_path)


@pytest.mark.parametrize("settings", [{}, {"tasks": []}, {"format": "jsonl"}, {"tasks": [], "format": ["arrow"]}])
def test_a_set_of_a_format_that_is_not_known_is_refused_with_its_version(tmp_path, settings):
    (tmp_path / "data.json").write_text(json.dumps(TOLD | {"settings": settings}))
    with pytest.raises(JoyImageError, match="was made by version 7, and its questions are in no format of this one"):
        inspect(tmp_path)
