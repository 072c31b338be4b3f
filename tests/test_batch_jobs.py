"""Tables of jobs: what each row becomes, and how a row that cannot be run says so."""

from __future__ import annotations

import json
import os
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from joyimage import JoyImageError, spatial
from joyimage.scale.addresses import read_picture, shown
from joyimage.scale.batch import tasks
from joyimage.scale.jobs import ASK, EDIT, GENERATE, Fault, Job, check_name, read_jobs
from joyimage.scale.limits import Limits
from joyimage.scale.tables import read_table

CELLS = {"images": "cup.png", "instruction": "Remove the cup."}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cup.png", "hat.png"):
        Image.new("RGB", (80, 64), "teal").save(name)
    return tmp_path


def lines(*rows: dict | str) -> str:
    """A table of JSON lines, and its name."""
    with open("jobs.jsonl", "w", encoding="utf-8") as file:
        file.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return "jobs.jsonl"


def only(row: dict | str, **defaults) -> Job | Fault:
    (found,) = read_jobs(lines(row), defaults)
    return found


def test_a_row_becomes_an_edit_with_what_its_columns_say(folder):
    job = only(
        {**CELLS, "steps": 4, "size": "64x80", "negative_prompt": "blur", "seed": 2**63, "name": "a/b", "mine": 5}
    )
    assert job == Job(
        1, "a/b", EDIT, "Remove the cup.", 2**63, ("cup.png",), str(folder), "blur", (64, 80), options={"steps": 4}
    )
    assert (job.output, job.pictures) == ("a/b.png", [str(folder / "cup.png")])


def test_the_kind_is_that_of_the_column(folder):
    assert only({"prompt": "A red cube."}).kind == GENERATE
    job = only({"images": ["cup.png", "hat.png"], "question": "What is it?", "temperature": 0, "max_new_tokens": 9})
    assert (job.kind, job.text, job.output) == (ASK, "What is it?", "")
    assert job.options == {"temperature": 0, "max_new_tokens": 9}


@pytest.mark.parametrize(
    ("cells", "text", "box"),
    [
        ({"move": "cup", "box": [1, 2, 30.5, 40]}, spatial.move_object("cup"), (1, 2, 30.5, 40)),
        ({"move": "cup", "box": "1, 2, 30, 40"}, spatial.move_object("cup"), (1, 2, 30, 40)),
        ({"rotate": "cup", "view": "front left"}, spatial.rotate_object("cup", "front left"), None),
        ({"camera": "45,-10,in"}, spatial.camera(45, -10, "in"), None),
        ({"camera": [45]}, spatial.camera(45), None),
        ({"camera": {"yaw": 30, "zoom": "out"}}, spatial.camera(30, 0, "out"), None),
    ],
)
def test_spatial_columns_write_the_sentence(folder, cells, text, box):
    job = only({"images": "cup.png", **cells})
    assert (job.text, job.box) == (text, box)


def test_the_command_says_what_rows_do_not(folder):
    job = only({"images": "cup.png", "steps": 7}, instruction="Make it night.", steps=3, shift=2.0, seed=5)
    assert (job.text, job.seed, job.options) == ("Make it night.", 5, {"steps": 7, "shift": 2.0})
    assert only({**CELLS}, prompt="A cube.").kind == EDIT
    assert only({"images": "cup.png", "question": "What?"}, steps=3, size=(64, 64), instruction="x").options == {}
    assert only({**CELLS, "exact": True}, base_size=512).base_size is None
    assert only({"prompt": "x", "exact": False, "strength": 1}, strength=0.5).options == {"strength": 1}
    assert only({"prompt": "x"}, strength=0.5).options == {}


BAD = [
    ({"images": "cup.png", "instrution": "x"}, "no column 'instrution'; did you mean instruction?"),
    ({"image": "cup.png", "instruction": "x"}, "no column 'image'; did you mean images?"),
    ({**CELLS, "images": "absent.png"}, "there is no picture .*absent.png"),
    ({**CELLS, "images": ["cup.png"] * 7}, "7 images"),
    ({"images": "cup.png"}, "nothing is asked for"),
    ({"instruction": "x"}, "instruction needs images"),
    ({**CELLS, "prompt": "x"}, "instruction and prompt cannot go together"),
    ({"images": "cup.png", "prompt": "x"}, "call it instruction"),
    ({**CELLS, "steps": 0}, "steps is 0"),
    ({**CELLS, "steps": 2.5}, "steps is 2.5 and must be a whole number"),
    ({**CELLS, "steps": "many"}, "steps is 'many' and must be a whole number"),
    ({**CELLS, "guidance_scale": [1]}, "guidance_scale is .* must be a number"),
    ({**CELLS, "solver": "magic"}, "unknown solver 'magic'"),
    ({**CELLS, "size": "100x100"}, "multiples of 16"),
    ({**CELLS, "size": "wide"}, "size is 'wide'"),
    ({**CELLS, "base_size": 300}, "base size 300"),
    ({**CELLS, "seed": -1}, "seed is -1"),
    ({**CELLS, "exact": "perhaps"}, "exact is 'perhaps'"),
    ({**CELLS, "temperature": 0}, "temperature cannot go with an edit"),
    ({"images": "cup.png", "question": "x", "steps": 4}, "steps cannot go with a question"),
    ({**CELLS, "view": "left"}, "view cannot go with an instruction"),
    ({"images": "cup.png", "move": "cup"}, "a box in its pixels or"),
    ({"images": "cup.png", "move": "cup", "box": [1, 2, 3]}, "box is .* left, top, right, bottom"),
    ({"images": "cup.png", "rotate": "cup", "view": "above"}, "unknown view 'above'"),
    ({"images": "cup.png", "camera": "a,b"}, "camera yaw is 'a'"),
    ({"images": "cup.png", "camera": "1,2,in,out"}, "yaw, pitch, zoom"),
    ({"images": "cup.png", "mask": "cup.png", "outpaint": [1, 1, 1, 1]}, "mask and outpaint cannot go together"),
    ({"images": "cup.png", "mask": "absent.png"}, "there is no picture .*absent.png"),
    ({"images": "cup.png", "rotate": "cup", "view": "left", "mask": "cup.png"}, "mask and a spatial edit"),
    ({**CELLS, "candidates": 1000}, "candidates"),
    ({**CELLS, "size": [16000, 16000]}, "pixels of size: 256,000,000 are more than the 4,194,304 of --max-pixels"),
    ({**CELLS, "size": [16, 10**6]}, "16384 pixels a side are the most"),
    ({**CELLS, "steps": 101}, "steps: 101 are more than the 100 of --max-steps"),
    ({**CELLS, "steps": 10**9}, "steps is 1000000000; give at most 100,000"),
    ({**CELLS, "sigmas": [1 - i / 102 for i in range(102)]}, "steps by their levels: 102 are more than the 100"),
    ({**CELLS, "candidates": 9}, "candidates: 9 are more than the 8 of --max-candidates"),
    ({**CELLS, "instruction": "x" * 8001}, "characters of its text: 8,001 are more than the 8,000 of --max-characters"),
    ({**CELLS, "negative_prompt": "x" * 8001}, "characters of negative_prompt: 8,001"),
    ({"images": "cup.png", "question": "x", "max_new_tokens": 4097}, "max_new_tokens: 4,097 .* 4,096 of --max-tokens"),
    ({**CELLS, "name": "../up"}, "leads out of the folder"),
    ({**CELLS, "name": "/root"}, "leads out of the folder"),
    ({**CELLS, "name": "C:/x"}, "leads out of the folder"),
    ({**CELLS, "name": ".batch/x"}, "hidden"),
    ({**CELLS, "name": "a//b"}, "empty"),
    ({**CELLS, "name": "a\\b"}, "backslash"),
    ({**CELLS, "name": "a.png/b"}, "ends in .png"),
    ({**CELLS, "name": "a.PNG/b"}, "ends in .png"),
    ({**CELLS, "name": "Manifest.parquet/b"}, "a folder that is manifest.parquet"),
    ({**CELLS, "name": "x" * 300}, "over 200 bytes"),
    ({**CELLS, "name": "nul"}, "Windows"),
    ({**CELLS, "name": "folder/" * 200 + "x"}, "over 800 bytes in all"),
    ({**CELLS, "size": [10**400 + 1, 64]}, "multiples of 16"),
    ({**CELLS, "guidance_scale": 10**400}, "guidance_scale is 1000.* must be a number"),
    ({"images": "cup.png", "move": "cup", "box": [0, 0, 10**400, 9]}, "box is 1000.* must be a number"),
    ({"images": "cup.png", "camera": {"yaw": 10**400}}, "camera yaw is 1000.* must be a number"),
    ({"images": "cup.png", "camera": {"yaww": 45, "zoom": "in"}}, "camera has no yaww; it has yaw, pitch and zoom"),
    ({**CELLS, "instruction": "\udce9"}, "no character"),
    ({"images": "cup.png", "camera": [1, 2, 3]}, "camera zoom must be text, not int"),
    ({"prompt": "x", "mask": "cup.png"}, "mask cannot go with a picture from text: that changes none"),
    ({"prompt": "x", "outpaint": [8, 8, 8, 8]}, "outpaint cannot go with a picture from text"),
    ({"prompt": "x", "exact": True, "strength": 0.5}, "exact, strength cannot go with a picture from text"),
    ("{", "cannot be read as JSON"),
    ('{"images": "cup.png", "instruction": "x", "instruction": "y"}', "'instruction' is there more than once"),
    ('{"images": "cup.png", "camera": {"yaw": 1, "yaw": 2}}', "'yaw' is there more than once"),
    ("[1]", "no JSON object"),
]


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message for _, message in BAD])
def test_a_row_that_cannot_be_run_says_why_and_the_next_is_read(folder, row, message):
    fault, job = read_jobs(lines(row, CELLS))
    assert isinstance(fault, Fault) and (fault.row, fault.name) == (
        1,
        "00000/00000001" if "name" not in row else fault.name,
    )
    with pytest.raises(JoyImageError, match=message):
        raise JoyImageError(fault.reason)
    assert isinstance(job, Job) and job.row == 2


def test_limits_can_be_set(folder):
    row = {**CELLS, "steps": 200, "size": "4096x2048"}
    (job,) = read_jobs(lines(row), limits=Limits(max_steps=200, max_pixels=2**23))
    assert isinstance(job, Job)
    (fault,) = read_jobs("jobs.jsonl", limits=Limits(max_steps=199, max_pixels=2**23))
    assert "steps: 200 are more than the 199" in fault.reason


def test_the_first_row_of_a_name_has_it_whatever_its_case(folder):
    first, second, third = read_jobs(lines({**CELLS, "name": "A"}, {**CELLS, "name": "a.png"}, {**CELLS, "name": "b"}))
    assert (first.name, third.name) == ("A", "b")
    assert isinstance(second, Fault) and "is that of another row" in second.reason and second.name == "00000/00000002"
    written, spelt = read_jobs(lines({**CELLS, "name": "caf\u00e9"}, {**CELLS, "name": "cafe\u0301"}))
    assert isinstance(written, Job) and isinstance(spelt, Fault)  # one name on macOS


def test_names_without_one_are_numbers_in_folders_of_a_thousand(folder):
    jobs = list(read_jobs(lines(*[CELLS] * 1001)))
    assert [jobs[i].output for i in (0, 998, 999, 1000)] == [
        "00000/00000001.png", "00000/00000999.png", "00001/00001000.png", "00001/00001001.png",
    ]  # fmt: skip
    assert check_name("sub/cat.png") == "sub/cat"


def test_csv_and_parquet_say_the_same_as_json_lines(folder):
    rows = [
        {"images": "cup.png", "instruction": 'Write "a, b".', "steps": 4, "guidance_scale": 2.5, "exact": True},
        {"images": ["cup.png", "hat.png"], "instruction": "Wear it.", "size": [64, 80], "seed": 7},
    ]
    with open("jobs.csv", "w", encoding="utf-8-sig") as file:
        file.write("images,instruction,steps,guidance_scale,exact,size,seed,mine\n")
        file.write('cup.png,"Write ""a, b"".",4,2.5,true,,,x\n')
        file.write('"[""cup.png"", ""hat.png""]",Wear it.,,,,64x80,7,\n')
    columns = {name: [row.get(name) for row in rows] for name in ("instruction", "steps", "guidance_scale", "exact")}
    columns |= {"images": [["cup.png"], ["cup.png", "hat.png"]], "size": [None, [64, 80]], "seed": [float("nan"), 7.0]}
    pq.write_table(pa.table(columns), "jobs.parquet")
    expected = list(read_jobs(lines(*rows)))
    assert all(isinstance(job, Job) for job in expected)
    for name in ("jobs.jsonl", "jobs.csv"):
        with open(name, "a", encoding="utf-8") as file:
            file.write("\n\n")  # lines without anything are no rows
    assert list(read_jobs("jobs.jsonl")) == expected
    assert list(read_jobs("jobs.csv")) == list(read_jobs("jobs.parquet")) == expected


def test_a_csv_row_that_is_too_long_or_no_utf_8_is_one_fault(folder):
    (folder / "jobs.csv").write_bytes(b"images,instruction\ncup.png,a,b\ncup.png,caf\xe9\ncup.png,ok\n")
    long, bytes_, good = read_jobs("jobs.csv")
    assert "3 cells under 2 columns" in long.reason and "no character" in bytes_.reason and good.text == "ok"


def test_a_quote_that_is_never_closed_says_which_lines_it_takes(folder):
    (folder / "jobs.csv").write_text('images,instruction\ncup.png,ok\ncup.png,"Never\n' + "cup.png,lost\n" * 5)
    good, lost = read_jobs("jobs.csv")
    assert good.text == "ok"
    assert lost.reason.startswith("lines 3 to 8 are one row, which cannot be read: ")
    assert lost.reason.endswith("close the quote of line 3")
    (folder / "jobs.csv").write_text('images,instruction\ncup.png,"a"b"\ncup.png,ok\n')
    lost, good = read_jobs("jobs.csv")
    assert lost.reason.startswith("line 2 cannot be read: ") and good.text == "ok"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("jobs.csv", b"", "must name the columns"),
        ("jobs.csv", b"images,images\n", "more than once"),
        ("jobs.csv", b"images;instruction\r\ncup.png;x\r\n", "';' stands between the columns .* use commas"),
        ("jobs.csv", b"images\tinstruction\ncup.png\tx\n", "use commas"),
        ("jobs.parquet", b"PAR1", "cannot be read as Parquet at its start"),
        ("jobs.csv", "images,instruction\n".encode("utf-16"), "jobs.csv is in UTF-16; save it as UTF-8"),
        ("jobs.jsonl", "{}\n".encode("utf-16"), "jobs.jsonl is in UTF-16; save it as UTF-8"),
        ("jobs.txt", b"x", ".jsonl, .csv, .parquet or a folder"),
        ("absent.jsonl", None, "absent.jsonl does not exist"),
    ],
)
def test_a_table_that_cannot_be_read_as_a_whole_is_an_error(folder, name, content, message):
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(JoyImageError, match=message):
        list(read_table(name))


def test_what_spreadsheets_add_is_no_row_and_a_quote_that_stays_open_is_one_fault(folder):
    (folder / "jobs.csv").write_bytes(b'images,instruction\n,\ncup.png,a,,\n , \nhat.png,"b\ncup.png,c\n')
    first, second = read_jobs("jobs.csv")
    assert (first.row, first.text) == (1, "a")
    assert isinstance(second, Fault) and second.row == 2 and "unexpected end of data" in second.reason


def test_parquet_types_that_databases_write(folder):
    camera = pa.array([None, {"yaw": 45.0, "zoom": None}], pa.struct([("yaw", pa.float64()), ("zoom", pa.string())]))
    empty = pa.StructArray.from_arrays([pa.nulls(2, pa.float64())], ["yaw"])
    columns = {
        "images": pa.array(["cup.png", "hat.png"]).dictionary_encode(), "instruction": ["Remove it.", None],
        "guidance_scale": [Decimal("2.5"), Decimal("3.0")], "steps": pa.array([4, 5], pa.uint8()),
    }  # fmt: skip
    pq.write_table(pa.table({**columns, "camera": camera}), "jobs.parquet")
    first, second = read_jobs("jobs.parquet")
    assert (first.text, first.options) == ("Remove it.", {"guidance_scale": 2.5, "steps": 4})
    assert (second.text, second.options) == (spatial.camera(45), {"guidance_scale": 3.0, "steps": 5})
    pq.write_table(pa.table({**columns, "camera": empty}), "jobs.parquet")
    assert next(read_jobs("jobs.parquet")).text == "Remove it."
    twice = pa.Table.from_arrays([pa.array(["cup.png"]), pa.array(["hat.png"])], names=["images", "images"])
    pq.write_table(twice, "jobs.parquet")
    with pytest.raises(JoyImageError, match="'images' is there more than once"):
        list(read_jobs("jobs.parquet"))


def test_a_folder_is_a_row_for_each_picture_in_it(folder):
    os.makedirs("in/sub/.hidden")
    for name in ("in/b.png", "in/sub/a.JPG", "in/b.webp", "in/.c.png", "in/sub/.hidden/d.png"):
        Image.new("RGB", (16, 16)).save(name)
    (folder / "in/notes.txt").write_text("no picture")
    jobs = list(read_jobs("in", {"instruction": "Make it night."}))
    assert [(job.name, job.images) for job in jobs] == [
        ("b-png", ("b.png",)),
        ("b-webp", ("b.webp",)),
        ("sub/a", ("sub/a.JPG",)),
    ]
    assert jobs[2].pictures == [str(folder / "in/sub/a.JPG")]


def test_rows_of_one_picture_come_together_and_keep_their_order(folder):
    rows = [{"images": name, "instruction": f"{i}"} for i, name in enumerate(["hat.png", "cup.png"] * 20)]
    rows += [{**CELLS, "size": "64x64"}, {"images": "cup.png", "move": "cup", "box": [1, 1, 9, 9]}]
    settled = bytearray(43)
    settled[2] = 1
    found = list(tasks(lines(*rows), settled))
    assert sorted(job.row for task in found for job in task) == [1, *range(3, 43)]
    assert all(len({job.shared for job in task}) == 1 for task in found)
    assert sorted(map(len, found)) == [1, 1, 3, 4, 16, 16]
    assert all([job.row for job in task] == sorted(job.row for job in task) for task in found)


def test_storages_are_reached_by_name_and_no_key_is_told(folder):
    table = f"file://{folder}/jobs.jsonl"
    lines(CELLS)
    (job,) = read_jobs(table)
    assert job.pictures == [f"file://{folder}/cup.png"]
    assert read_picture(job.pictures[0]).size == (80, 64)
    with pytest.raises(JoyImageError, match=f"^file://{folder}/absent.png does not exist, or its storage"):
        read_picture(f"file://{folder}/absent.png")
    assert shown("s3://key:secret@bucket/a.png?X-Signature=1") == "s3://bucket/a.png"
    with pytest.raises(JoyImageError) as caught:
        read_picture("nosuch://key:secret@bucket/a.png")
    assert "nosuch://bucket/a.png" in str(caught.value) and "secret" not in str(caught.value)


def test_a_fingerprint_tells_what_decides_a_result_and_nothing_else(folder):
    first, other = read_jobs(lines({**CELLS, "steps": 4}, {**CELLS, "steps": 5}))
    (folder / "moved").mkdir()
    os.rename("cup.png", "moved/cup.png")
    lines({**CELLS, "steps": 4, "name": "elsewhere"})
    os.rename("jobs.jsonl", "moved/jobs.jsonl")
    (moved,) = read_jobs("moved/jobs.jsonl")
    assert first.fingerprint({}) == moved.fingerprint({}) != other.fingerprint({})
    assert first.fingerprint({"dtype": "bfloat16"}) != first.fingerprint({})
