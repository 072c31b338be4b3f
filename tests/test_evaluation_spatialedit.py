"""SpatialEdit-Bench on items made from drawn scenes: what is read, made, gone on with, scored and reported."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import drawn_bench
import numpy as np
import pytest
from PIL import Image

from joyimage import JoyImage, spatial
from joyimage.boxes import draw_box, overlap
from joyimage.candidates import Verdict
from joyimage.errors import JoyImageError
from joyimage.evaluation import scoring, spatialedit
from joyimage.evaluation.framing import Detection
from joyimage.evaluation.kept import Kept
from joyimage.evaluation.layout import KINDS, META, Motion, read_items
from joyimage.evaluation.predicting import Wanted, check_predictions, described, make_all
from joyimage.evaluation.settings import Predicting, some
from joyimage.evaluation.tools import own_tools
from joyimage.images import read_parameters
from joyimage.settings import VIEWS
from tools.tiny import bench

GRAY = Image.new("RGB", (64, 64), "gray")


@pytest.fixture(scope="module")
def made():
    return drawn_bench.made()


@pytest.fixture
def scored(tmp_path):
    """The items, whose true results lie in a folder as predictions; and what scores them."""
    items = drawn_bench.perfect(tmp_path)
    return items, tmp_path, lambda **changed: scoring.score(items, tmp_path, replace(drawn_bench.tools(), **changed))


def of_kind(kind: str, items) -> list:
    return [item for item in items if item.kind == kind]


def test_items_are_read_as_they_were_written(made):
    folder, drawn = made
    items = read_items(folder)
    assert read_items(folder / META) == items
    assert {kind: len(of_kind(kind, items)) for kind in drawn} == bench.numbers(drawn_bench.COUNT)
    (move, *_), (turn, *_), (camera, *_) = (of_kind(kind, items) for kind in ("move", "rotate", "camera"))
    assert move.box == tuple(drawn["move"].rendered.box()[0]) and move.object == drawn["move"].before.name(0)
    assert spatial.parse(turn.prompt).instruction.view == turn.view
    before, after = (scenes.camera[0] for scenes in (drawn["camera"].before, drawn["camera"].after))
    assert camera.motion == Motion(*(round(float(v), 6) for v in after - before))
    assert np.array_equal(np.asarray(Image.open(camera.truth)), drawn["camera"].target[0])
    assert move.prediction(folder) == folder / "fullset/move/en/000/move-0000.png"


@pytest.fixture
def listed(tmp_path):
    """A benchmark of one item of each kind, and how it is read with one field changed."""
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "a_gt.png")
    (tmp_path / "a.json").write_text('{"metadata": {"edit_ypd": {"yaw": 45, "distance": -1}}}')
    common = {"image_id": "a", "image_path": "a.png", "object": "cup"}
    entries = [
        {"type": "move", "edit_id": 1, "prompt": "Move it.", "bbox_gt": "[1, 2, 3, 4]", **common},
        {"type": "rotate", "edit_id": "2", "prompt": "Rotate the cup to show the rear left side view.", **common},
        {"type": "camera", "edit_id": "3", "prompt": "Move the camera.", **common},
    ]

    def read(number: int | None = None, **changed):
        if number is not None:
            entries[number].update(changed)
        (tmp_path / META).write_text(json.dumps(entries))
        return read_items(tmp_path)

    return read, tmp_path


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_read_with_and_without_the_word_side(listed, view):
    read, _ = listed
    for words in (f"Rotate the cup to show the {view} side view.", f"Rotate the cup to show the {view} view."):
        assert read(1, prompt=words)[1].view == view


def test_what_a_camera_edit_leaves_out_is_nothing(listed):
    read, _ = listed
    assert read()[2].motion == Motion(45, 0, -1)


@pytest.mark.parametrize(
    ("number", "changed", "message"),
    [
        (0, {"type": "jump"}, "edit 1: its type is 'jump'"),
        (0, {"prompt": " "}, "its prompt is ' ', not text"),
        (0, {"image_path": "b.png"}, "edit 1: there is no picture"),
        (0, {"image_path": "../a.png"}, "leads out of the benchmark's folder"),
        (1, {"image_id": "/etc"}, "edit 2: its image_id '/etc' leads out"),
        (1, {"edit_id": "..\\x"}, "leads out"),
        (1, {"edit_id": "C:/x"}, "leads out"),
        (0, {"bbox_gt": "[1, 2, 3]"}, "its bbox_gt is"),
        (0, {"bbox_gt": [3, 2, 1, 4]}, "is empty"),
        (0, {"bbox_gt": None}, "its bbox_gt is None"),
        (0, {"bbox_gt": [1, 2, float("nan"), 4]}, "is empty"),
        (0, {"bbox_gt": [1, 2, 3, 10**400]}, "its bbox_gt is"),
        (0, {"bbox_gt": "[" * 5000}, "its bbox_gt is"),
        (0, {"bbox_gt": [20, 2, 30, 4]}, "is outside of its picture of 20 x 10 pixels"),
        (0, {"bbox_gt": [1, -9, 3, 0]}, "is outside of its picture"),
        (0, {"prompt": "Move \ud800."}, "edit 1: its prompt holds"),
        (1, {"edit_id": "a\0b"}, "cannot be the name of a file"),
        (1, {"edit_id": "a" * 241}, "cannot be the name of a file"),
        (1, {"image_path": 10**300}, "cannot be the name of a file"),
        (1, {"prompt": "Rotate the cup."}, "asks for none of the views"),
        (1, {"type": "move", "edit_id": 1, "bbox_gt": "[1, 2, 3, 4]"}, "two edits are called move/a/1"),
        (1, {"type": "move", "edit_id": "./1", "bbox_gt": "[1, 2, 3, 4]"}, "the files of move/a/1 are those of"),
        (1, {"type": "move", "edit_id": "1_gt", "bbox_gt": "[1, 2, 3, 4]"}, "are those of move/a/1_gt"),
    ],
)
def test_a_malformed_item_is_named(listed, number, changed, message):
    read, _ = listed
    with pytest.raises(JoyImageError) as error:
        read(number, **changed)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", None, "says how the camera moves"),
        ("a.json", '{"metadata": []}', "holds no metadata.edit_ypd"),
        ("a.json", '{"metadata": {"edit_ypd": {"yaw": "far"}}}', "give three numbers"),
        ("a.json", '{"metadata": {"edit_ypd": {"Yaw": 45}}}', "has none of yaw, pitch, distance"),
        ("a_gt.png", "version https://git-lfs.github.com/spec/v1", "edit 3: .*a_gt.png is not a picture"),
        ("a.png", "version https://git-lfs.github.com/spec/v1", "edit 1: .*a.png is not a picture"),
        ("a_gt.png", None, "there is no a_gt.png"),
    ],
)
def test_what_a_camera_edit_needs_is_named(listed, name, text, message):
    read, folder = listed
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(JoyImageError, match=message):
        read()


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[3]", "[" * 5000])
def test_a_list_that_is_none_is_refused(tmp_path, text):
    (tmp_path / META).write_text(text)
    with pytest.raises(JoyImageError, match=META):
        read_items(tmp_path)


def test_some_items_are_spread_over_all():
    assert some(list(range(10)), 4) == [0, 2, 5, 7]
    assert some([1, 2], 5) == some([1, 2], None) == [1, 2]
    with pytest.raises(JoyImageError, match="limit is 0"):
        some([1], 0)


def test_true_results_score_perfect(scored):
    items, folder, score = scored
    (move,), turns = of_kind("move", items), of_kind("rotate", items)
    seen = {Image.open(item.prediction(folder)).tobytes(): item.view for item in turns}
    scores = score(
        locate=lambda picture, obj: [move.box],
        see=lambda picture, obj: seen[picture.tobytes()],
        judge=lambda attempt: Verdict(1.0),
    )
    found = spatialedit.figures(scores)
    assert found["move"] == {"scored": 1, "iou": 1, "judged": 1, "consistency": 1, "score": 1}
    assert found["rotate"] == {"scored": 3, "view": 1, "judged": 3, "consistency": 1, "score": 1}
    camera = found["camera"]
    assert [camera[name] for name in ("ve", "fe", "angle", "distance", "rotation")] == pytest.approx([0] * 5, abs=1e-9)
    assert camera["without_ve"] == 0 and not any(each.note for each in scores)
    assert all(each.goodness == pytest.approx(1) for each in scores)


def test_pictures_that_were_left_as_they_are_score_what_the_formulas_say(scored):
    items, folder, score = scored
    for item in items:
        shutil.copyfile(item.picture, item.prediction(folder))
    for each in score():
        if each.item.kind == "camera":
            still, (source, truth) = each.viewpoint, _true_cameras(each.item)
            assert still.distance == pytest.approx(1)
            expected = bench.pose(source).rotation.T @ bench.pose(truth).rotation
            angle = math.degrees(math.acos((np.trace(expected) - 1) / 2))
            assert still.rotation == pytest.approx(angle / 90)
            assert each.framing.zoom in (1.0, None)
        if each.item.kind == "move":
            assert each.iou == pytest.approx(overlap(each.found, each.item.box)) and each.iou < 0.5


def _true_cameras(item):
    pairs = drawn_bench.made()[1]["camera"]
    i = int(item.edit_id.rpartition("-")[2])
    return pairs.before.camera[i], pairs.after.camera[i]


def test_a_box_that_is_off_scores_its_overlap(scored):
    items, _, score = scored
    (item,) = of_kind("move", items)
    left, top, right, bottom = item.box
    half = (left, top, (left + right) / 2, bottom)
    (found,) = of_kind_scores("move", score(locate=lambda *_: [half], judge=lambda attempt: 0.49))
    assert found.iou == pytest.approx(0.5) and found.overall == pytest.approx(math.sqrt(0.5 * 0.49))


def of_kind_scores(kind: str, scores) -> list:
    return [each for each in scores if each.item.kind == kind]


def test_an_object_that_is_not_found_scores_nothing_and_says_so(scored):
    _, _, score = scored
    (found,) = of_kind_scores("move", score(locate=lambda *_: []))
    assert found.iou == 0 and found.note == f"no {found.item.object} is found"


def test_a_judge_that_cannot_tell_gives_no_score(scored):
    _, _, score = scored
    scores = score(judge=lambda attempt: None)
    found = spatialedit.figures(scores)
    assert found["move"]["score"] is None and found["rotate"]["consistency"] is None
    assert all(each.note == "the judge could not tell" for each in scores if each.item.kind != "camera")
    again = of_kind_scores("move", score(judge=lambda attempt: 0.5))
    assert again[0].consistency == 0.5  # it was asked once more


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"see": lambda *_: "top"}, "sees sides says 'top'"),
        ({"estimate": lambda pictures: [bench.pose(np.array([0, 30, 7]))]}, "gives 1 poses for 3 pictures"),
        ({"detect": lambda pictures: [[]]}, "gives 1 lists for 3 pictures"),
        ({"judge": lambda attempt: 7.0}, "the judge's score is 7.0"),
        ({"locate": lambda *_: 5}, "move/000/move-0000: the tool drawn failed: TypeError"),
        ({"locate": lambda *_: [5]}, "move/000/move-0000: the tool drawn: a box that locates something is 5"),
        ({"locate": lambda *_: [(1, 2, math.nan, 4)]}, "a box that locates something is"),
        ({"locate": lambda *_: [(1, 2, 3)]}, "a box that locates something is"),
        ({"locate": lambda *_: [(30, 2, 3, 4)]}, "a box that locates something is"),
        ({"see": lambda *_: np.array([1, 2])}, "sees sides says array"),
        ({"detect": lambda pictures: [[Detection(3, (1, 2, 3, 4))]] * 3}, "camera/.*the label of a detection"),
    ],
)
def test_a_tool_that_says_what_it_may_not_is_named(scored, changed, message):
    _, _, score = scored
    with pytest.raises(JoyImageError, match=message):
        score(**changed)


def test_without_poses_the_framing_is_measured_all_the_same(scored):
    _, _, score = scored
    for estimate, note in ((None, ""), (lambda pictures: None, "the poses could not be estimated")):
        found = of_kind_scores("camera", score(estimate=estimate, detect=bench.detect))
        assert all(each.viewpoint is None and each.framing.angle == pytest.approx(0) for each in found)
        assert {each.note for each in found} == {note}
        (scored[1] / scoring.FILE).unlink()


def test_what_a_tool_said_is_not_asked_again(scored):
    items, folder, _ = scored
    asked = []

    def locate(picture, obj):
        asked.append(obj)
        return bench.locate(picture, obj)

    tools = drawn_bench.tools().with_tool("locate", locate, "mine")
    first = scoring.score(items, folder, tools)
    assert scoring.score(items, folder, tools)[0].iou == first[0].iou and len(asked) == 1
    scoring.score(items, folder, tools.with_tool("locate", locate, "another"))
    assert len(asked) == 2  # by another name it may say something else
    shutil.copyfile(items[0].picture, items[0].prediction(folder))
    scoring.score(items, folder, tools)
    assert len(asked) == 3  # of another picture too


def test_what_was_said_beside_another_picture_of_the_benchmark_is_asked_again(scored, tmp_path_factory):
    _, folder, _ = scored
    own = tmp_path_factory.mktemp("own")
    shutil.copytree(drawn_bench.made()[0], own, dirs_exist_ok=True)
    items = read_items(own)
    asked = []

    def judge(attempt):
        asked.append(attempt)
        return 0.5

    tools = replace(drawn_bench.tools(), judge=judge)
    for _ in range(2):
        scoring.score(items, folder, tools)
    (move,) = of_kind("move", items)
    assert len(asked) == 4
    GRAY.save(move.picture)
    scoring.score(items, folder, tools)
    assert len(asked) == 5


def test_a_missing_prediction_is_counted_and_comes_first(scored):
    items, folder, score = scored
    items[2].prediction(folder).unlink()
    report = spatialedit.report(items, folder, score(), {"model": "none"})
    assert report.about == {"model": "none", "items": 6, "missing": 1}
    assert report.worst_first[0].name == items[2].name and report.figures["rotate"]["scored"] == 2


def no_model() -> None:
    """Pictures that need none."""


def counted(folder, count: int, settings=None, stop: int | None = None) -> tuple[list[Wanted], list[int]]:
    """Pictures to make, and the numbers of those that were made; at `stop` the user stops."""
    calls: list[int] = []

    def make(number: int):
        if number == stop:
            raise KeyboardInterrupt
        calls.append(number)
        return Image.new("RGB", (16, 16), (number, 0, 0))

    settings = settings or {"seed": 42}
    return [Wanted(folder / f"{n}.png", settings, lambda _, n=n: make(n)) for n in range(count)], calls


def test_pictures_are_made_once(tmp_path):
    wanted, calls = counted(tmp_path / "new", 3)
    assert make_all(wanted, no_model) == 3 and make_all(wanted, no_model) == 0 and calls == [0, 1, 2]
    assert read_parameters(wanted[0].path) == {"seed": 42}


def test_a_stopped_run_keeps_what_it_has_and_goes_on(tmp_path):
    wanted, _ = counted(tmp_path, 4, stop=2)
    with pytest.raises(KeyboardInterrupt, match="2 of 4 pictures are kept, and the same command goes on"):
        make_all(wanted, no_model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]
    again, calls = counted(tmp_path, 4)
    assert make_all(again, no_model) == 2 and calls == [2, 3]


def test_pictures_made_otherwise_are_not_mixed_in(tmp_path):
    make_all(counted(tmp_path, 1, {"steps": 20, "seed": 42})[0], no_model)
    with pytest.raises(JoyImageError, match=r"0\.png was made with steps 20, not 50"):
        check_predictions(counted(tmp_path, 1, {"steps": 50})[0])
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")  # of another program
    check_predictions(counted(tmp_path, 1, {"steps": 50})[0])


LORA = {"loras": [["a.safetensors", 1.0]]}


@pytest.mark.parametrize(("before", "now"), [({}, LORA), (LORA, {}), ({"products": "8bit"}, {}), ({}, {"theta": 256})])
def test_pictures_of_other_networks_are_not_mixed_in(tmp_path, before, now):
    make_all(counted(tmp_path, 1, {"seed": 42, **before})[0], no_model)
    check_predictions(counted(tmp_path, 1, {"seed": 42, **before})[0])
    with pytest.raises(JoyImageError, match=r"0\.png was made with (loras|products|theta) .*by default"):
        check_predictions(counted(tmp_path, 1, {"seed": 42, **now})[0])


@pytest.mark.parametrize("damage", ["empty", "cut", "folder", "text"])
def test_a_prediction_that_cannot_be_read_is_named_before_any_work(tmp_path, damage):
    wanted, _ = counted(tmp_path, 2)
    make_all(wanted, no_model)
    path = wanted[1].path
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "cut": data[:-9], "text": b"no picture"}[damage])
    for check in (check_predictions, described):
        with pytest.raises(JoyImageError, match=r"1\.png is to be a picture: .*move it away"):
            check(wanted)


def test_pictures_say_how_they_were_made(tmp_path):
    make_all(counted(tmp_path, 1, {"steps": 4, "seed": 1, "prompt": "a", **LORA})[0], no_model)
    Image.new("RGB", (16, 16)).save(tmp_path / "1.png")
    make_all(counted(tmp_path, 3, {"steps": 8, "seed": 1, "prompt": "b", **LORA})[0], no_model)
    asked, _ = counted(tmp_path, 4, {"steps": 50, "seed": 42, "prompt": "c"})  # of which one is not there
    assert described(asked) == ({"steps": [4, 8], "seed": 1, **LORA}, 1)


def test_kept_answers_outlive_a_kill(tmp_path):
    path = tmp_path / "kept.jsonl"
    kept = Kept(path)
    assert kept.get(("a", "b"), lambda: [1, 2]) == [1, 2]
    with path.open("ab") as file:
        file.write(b'{"of": "half a li')
    again = Kept(path)
    assert again.get(("a", "b"), lambda: pytest.fail("asked again")) == [1, 2]
    assert again.get(("ab", ""), lambda: "other") == "other"
    assert len(Kept(path)) == 2 and path.read_bytes().count(b"\n") == 2


def test_a_file_of_something_else_is_not_taken_for_answers(tmp_path):
    (tmp_path / "kept.jsonl").write_text("a,b\n")
    with pytest.raises(JoyImageError, match="line 1: it holds no answer"):
        Kept(tmp_path / "kept.jsonl")


@pytest.fixture(scope="module")
def model():
    return JoyImage.load("tiny", device="cpu")


@pytest.mark.slow
def test_the_bundled_model_makes_the_same_edits_in_any_order(model, made, tmp_path):
    items, settings = read_items(made[0]), Predicting(2, 1.0)
    every = spatialedit.wanted(items, tmp_path / "all", settings, {"model": "tiny"})
    make_all(every, lambda: model)
    part = spatialedit.wanted(items[::-1], tmp_path / "part", settings, {"model": "tiny"})
    make_all(part[:3], lambda: model)
    for one, other in zip(every[::-1], part[:3], strict=False):
        assert one.path.read_bytes() == other.path.read_bytes()
    (camera, *_) = of_kind("camera", items)
    path = camera.prediction(tmp_path / "all")
    beside = {each.name.removeprefix(camera.edit_id) for each in path.parent.glob(f"{camera.edit_id}*")}
    assert beside == {".png", "_src.png", "_gt.png", "_prompt.txt", ".json"}  # what the released scripts look for
    assert read_parameters(path) == {"prompt": camera.prompt, **settings.options(), "model": "tiny"}


@pytest.mark.slow
def test_the_bundled_model_scores_itself(model, made, tmp_path):
    every = drawn_bench.perfect(tmp_path)
    items = [of_kind(kind, every)[0] for kind in KINDS]
    scores = scoring.score(items, tmp_path, own_tools(lambda: model.mind, "tiny"))
    found = spatialedit.figures(scores)
    assert set(found) == {"move", "rotate", "camera"} and 0 <= found["move"]["iou"] <= 1
    assert found["camera"]["fe"] is not None and found["move"]["score"] is None


def test_things_of_a_scene_are_found_by_colour(made):
    """What the figures by true boxes rest on."""
    _, drawn = made
    pairs = drawn["camera"]
    for i, pixels in enumerate(pairs.target):
        found = {each.label: each.box for each in bench.coloured(Image.fromarray(pixels))}
        for slot in np.flatnonzero(pairs.after.present[i]):
            colour = bench.COLOUR_NAMES[pairs.after.colour[i, slot]]
            assert overlap(found[colour], pairs.rendered.box(slot)[i]) > 0.5
    assert bench.detect([GRAY, GRAY]) == [[], []]
    assert bench.locate(draw_box(GRAY, (4, 4, 60, 60)), "red cube")
