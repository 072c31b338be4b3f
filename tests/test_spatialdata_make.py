"""Data sets made of drawn scenes: the same bytes however they were made, and what is wrong with a scene told."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from joyimage import atomic, spatial
from joyimage.boxes import overlap, red_box
from joyimage.cli import build_parser, main
from joyimage.errors import JoyImageError
from joyimage.evaluation.choices import read_questions
from joyimage.spatialdata import TASKS, Making, inspect, make
from joyimage.spatialdata.index import index_scene
from joyimage.spatialdata.inspecting import sheet
from joyimage.spatialdata.inspecting.contents import read_pairs, read_samples
from joyimage.spatialdata.lifting import lift
from joyimage.spatialdata.making.merging import dialogues
from joyimage.spatialdata.making.spreading import here
from joyimage.spatialdata.questions import marks
from joyimage.spatialdata.questions.evening import AHEAD, values_of
from joyimage.spatialdata.questions.form import Asking
from joyimage.spatialdata.readers import nerfstudio, read_scenes
from joyimage.spatialdata.settings import QUESTIONS
from joyimage.spatialdata.tasks import make_questions
from tools.tiny import captures

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
FEW = Making(tasks=("depth_order", "relative_size", "counting", "grounding_3d"), quota=3, views=3)
COMMAND = ["--tasks", ",".join(FEW.tasks), "--quota", "3", "--views", "3", "--quiet"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three drawn scenes and another state of each."""
    folder = tmp_path_factory.mktemp("scenes")
    captures.make(folder, 3, seed=3, size=96, states=True)
    return folder


@pytest.fixture(scope="module")
def made(scenes, tmp_path_factory):
    """What is made of them by one call, and its files."""
    out = tmp_path_factory.mktemp("made") / "set"
    return make(scenes, out, FEW), out


@pytest.fixture
def copied(scenes, tmp_path):
    """The scenes in a folder of the same name, to be damaged."""
    return Path(shutil.copytree(scenes, tmp_path / scenes.name))


def files(out: Path) -> dict[str, bytes]:
    """All of a data set but what it was made of."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    about = json.loads(found.pop("data.json"))
    return {**found, "made": json.dumps(about["made"]).encode()}


def test_the_settings_name_the_sub_tasks_and_the_command_has_all_of_them():
    assert tuple(TASKS) == QUESTIONS
    options = build_parser().parse_args(["data", "make", "a", "b"])
    assert Making(**{name: getattr(options, name) for name in Making.names()}) == Making()


def test_samples_are_the_questions_of_each_scene_with_their_marks(scenes, made):
    """What is written against what the library asks: texts, answers, and pictures drawn here."""
    report, out = made
    samples = {sample.id: sample for sample in read_samples(out)}
    asked = 0
    for place, scene in enumerate(read_scenes(scenes)):
        index = index_scene(scene.with_views(3))
        questions = make_questions(index, dict.fromkeys(FEW.tasks, 3), Asking(), place)
        for number, question in enumerate(questions):
            sample = samples.get(f"{place:07d}-{number:04d}")
            if sample is None:  # evened out
                continue
            asked += 1
            (turn,) = sample.turns
            assert (turn.text, turn.answer, turn.task) == (question.text, question.answer, question.task)
            assert [each.view for each in sample.shown] == [index.scene.views[view].name for view in question.views]
            for picture, drawn in zip(sample.pictures, marks.pictures(index, question), strict=True):
                difference = np.abs(np.asarray(picture.image(), int) - np.asarray(drawn, int))
                assert difference.mean() < 2 and difference.max() < 100  # but for what JPEG changes
    assert asked == len(samples) == sum(report.questions.values()) > 30
    assert report.scenes == report.used == 6 and not report.failed


def test_pictures_as_png_are_those_that_were_drawn(scenes, tmp_path):
    settings = replace(FEW, tasks=("grounding_3d",), pictures="png", scenes=1, edits=("none",))
    make(scenes, tmp_path / "set", settings)
    index = index_scene(next(read_scenes(scenes)).with_views(3))
    for sample in read_samples(tmp_path / "set"):
        view = [view.name for view in index.scene.views].index(sample.shown[0].view)
        assert np.array_equal(sample.pictures[0].image(), index.scene.views[view].picture())


def test_edit_pairs_say_what_leads_from_one_picture_to_the_other(scenes, made):
    report, out = made
    pairs = list(read_pairs(out))
    assert Counter(pair.kind for pair in pairs) == report.pairs
    assert min(report.pairs.values()) > 0
    index = {scene.name: index_scene(scene.with_views(3)) for scene in read_scenes(scenes)}
    for pair in pairs:
        told = spatial.parse(pair.text).instruction
        assert {"camera": spatial.Camera, "move": spatial.Move, "rotate": spatial.Rotate}[pair.kind] is type(told)
        assert (pair.views[0] == pair.views[1]) == (pair.kind != "camera")
        if pair.kind != "move":
            continue
        assert overlap(red_box(pair.source.image()), pair.box) > 0.9 and red_box(pair.target.image()) is None
        after, before = index[pair.scene], index[pair.scene.removesuffix("-after")]
        view = [each.name for each in after.scene.views].index(pair.views[0])
        states = [state.scene.views[view].picture() for state in (before, after)]
        differences = [np.abs(np.asarray(pair.target.image(), int) - np.asarray(each, int)).mean() for each in states]
        target = (before, after)[int(np.argmin(differences))]
        (number,) = [n for n, name in enumerate(target.names) if name == told.object]
        shown = np.array(target.sights[view, number].box) * np.tile((96, 96), 2)
        assert overlap(tuple(shown), pair.box) > 0.9


def test_every_way_gives_the_same_bytes(scenes, made, tmp_path):
    """In two processes; stopped twice, once with a shard damaged; and once more, which changes nothing."""
    wanted = files(made[1])
    several = tmp_path / "several"
    assert main(["data", "make", str(scenes), str(several), *COMMAND, "--workers", "2"]) == 0
    assert files(several) == wanted
    stopped = tmp_path / "stopped"
    for count in (0, 1, 3):
        kept = "1 scene is kept" if count == 0 else f"{count + 1} scenes are kept"  # the one at hand is done, too
        with pytest.raises(KeyboardInterrupt, match=f"^{kept}"):
            make(scenes, stopped, FEW, spread=interrupted(count))
    shard = stopped / "shards" / "0000" / "0000002.zip"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(JoyImageError, match="not complete"):
        inspect(stopped)
    make(scenes, stopped, FEW)
    assert files(stopped) == wanted
    assert (stopped / "data.json").read_bytes() == (made[1] / "data.json").read_bytes()
    before = (stopped / "data.json").stat().st_mtime_ns
    assert make(scenes, stopped, FEW) == made[0]
    assert (stopped / "data.json").stat().st_mtime_ns == before


def interrupted(count: int):
    """What spreads work until so many scenes are done, and then is stopped as by Ctrl-C."""

    def spread(do, jobs):
        for number, path in enumerate(here(do, jobs)):
            if number == count:
                raise KeyboardInterrupt
            yield path

    return spread


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_it_goes_on_to_the_same_bytes(scenes, made, tmp_path, workers):
    out = tmp_path / "set"
    command = [sys.executable, "-m", "joyimage", "data", "make", str(scenes), str(out), *COMMAND, "--workers", workers]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE) as child:
        children = []
        while not list(out.glob("shards/*/*.zip")):
            assert child.poll() is None, child.stderr.read().decode()
            time.sleep(0.02)
        children = psutil.Process(child.pid).children(recursive=True)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive  # a pool's processes end with the one that gave them work
    assert "made" not in json.loads((out / "data.json").read_text())
    done = {path: path.stat().st_mtime_ns for path in out.glob("shards/*/*.zip")}
    assert 1 <= len(done) < 6
    make(scenes, out, FEW, spread=kept(done))
    assert files(out) == files(made[1])


def kept(done: dict[Path, int]):
    """What spreads work and sees that no shard is made again."""

    def spread(do, jobs):
        for path in here(do, jobs):
            assert path.stat().st_mtime_ns == done.get(path, path.stat().st_mtime_ns)
            yield path

    return spread


def test_a_scene_that_cannot_be_used_is_named_and_the_others_are_done(copied, made, tmp_path, capsys):
    (copied / "scene00000" / "transforms.json").write_text("{")
    depth = copied / "scene00001" / "depth" / "000.png"
    depth.write_bytes(depth.read_bytes()[:100])
    (copied / "scene00002" / "images" / "000.png").unlink()
    out = tmp_path / "set"
    assert main(["data", "make", str(copied), str(out), *COMMAND, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    reasons = {each["scene"]: each["reason"] for each in told["failed"]}
    assert list(reasons) == [
        "scene00000", "scene00000-after", "scene00001", "scene00001-after", "scene00002", "scene00002-after",
    ]  # fmt: skip
    assert "no JSON" in reasons["scene00000"] and "another state of scene00000" in reasons["scene00000-after"]
    assert "000.png cannot be read" in reasons["scene00001"]
    assert reasons["scene00001-after"] == f"its state before: {reasons['scene00001']}"
    scenes_used = {sample.scene for sample in read_samples(out)}
    assert scenes_used == {"scene00000-after", "scene00001-after", "scene00002-after"} and told["used"] == 3
    assert {pair.kind for pair in read_pairs(out)} == {"camera"}
    assert "scene00001: " in str(inspect(out))


@pytest.mark.parametrize("workers", [1, 2])
def test_where_every_scene_is_broken_nothing_is_written(copied, tmp_path, capsys, workers):
    for path in copied.glob("*/transforms.json"):
        path.write_text("{")
    (tmp_path / "there").mkdir()
    for out in (tmp_path / "new", tmp_path / "there"):
        assert main(["data", "make", str(copied), str(out), *COMMAND, "--workers", str(workers)]) == 2
        said = capsys.readouterr().err
        assert "no scene can be used, so nothing is written. scene00000: " in said and "and 3 more" in said
        assert f"{copied / 'scene00000' / 'transforms.json'} is no JSON" in said
    assert not (tmp_path / "new").exists() and not list((tmp_path / "there").iterdir())


def test_a_scene_of_which_nothing_can_be_asked_is_not_broken(copied, tmp_path):
    made = make(copied, tmp_path / "set", replace(FEW, tasks=("orientation",), edits=("rotate",), scenes=1))
    assert made.failed == () and made.scenes == 1 and (tmp_path / "set" / "data.json").exists()


def fails(scene):
    if scene.name == "scene00001":
        raise ZeroDivisionError("by what it is prepared with")
    return scene


def test_whatever_a_scene_does_to_its_reader_it_is_told_and_the_others_are_done(copied, tmp_path, monkeypatch):
    read = nerfstudio.load_json

    def broken(path):
        if "scene00000" in str(path):
            raise OSError(errno.EIO, "Input/output error", str(path))
        if "scene00002" in str(path):
            raise LookupError("an error that nobody foresaw")
        return read(path)

    monkeypatch.setattr(nerfstudio, "load_json", broken)
    made = make(copied, tmp_path / "set", FEW, prepare=fails)
    reasons = dict(made.failed)
    assert reasons["scene00000"] == f"{copied / 'scene00000' / 'transforms.json'}: Input/output error"
    assert reasons["scene00001"] == "ZeroDivisionError: by what it is prepared with"
    assert reasons["scene00002"] == "LookupError: an error that nobody foresaw"
    assert {sample.scene for sample in read_samples(tmp_path / "set")} == {"scene00001-after"}


def test_what_failed_is_tried_again_when_the_run_goes_on(copied, made, tmp_path):
    depth = copied / "scene00000" / "depth" / "000.png"
    whole = depth.read_bytes()
    depth.write_bytes(whole[:100])
    with pytest.raises(KeyboardInterrupt):
        make(copied, tmp_path / "set", FEW, spread=interrupted(3))
    depth.write_bytes(whole)
    assert make(copied, tmp_path / "set", FEW) == made[0]
    assert files(tmp_path / "set") == files(made[1])


def test_a_full_disk_is_said_with_the_folder_and_what_is_done_is_kept(scenes, made, tmp_path, monkeypatch):
    publish = atomic.Part.publish

    def full(self, names, replace):
        if "0000002.zip" in str(names):
            raise OSError(errno.ENOSPC, "No space left on device")
        return publish(self, names, replace)

    monkeypatch.setattr(atomic.Part, "publish", full)
    with pytest.raises(JoyImageError, match=r"set: No space left on device; the scenes that are done are kept"):
        make(scenes, tmp_path / "set", FEW)
    assert len(list((tmp_path / "set" / "shards").rglob("*.zip"))) == 2
    monkeypatch.setattr(atomic.Part, "publish", publish)
    make(scenes, tmp_path / "set", FEW)
    assert files(tmp_path / "set") == files(made[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda scene: _rewritten(scene / "transforms.json", '"metric": true', '"metric": false'),
        lambda scene: shutil.copy(scene / "images" / "001.png", scene / "images" / "000.png"),
        lambda scene: os.utime(scene / "depth" / "000.png", (1, 1)),
    ],
)
def test_a_scene_that_has_changed_is_done_again_when_the_run_goes_on(copied, tmp_path, change):
    """As is another state of it, which is compared with it."""
    out, done = tmp_path / "set", []
    with pytest.raises(KeyboardInterrupt):
        make(copied, out, FEW, spread=interrupted(5))
    before = {path.name: path.stat().st_mtime_ns for path in (out / "shards").rglob("*.zip")}
    change(copied / "scene00001")

    def watched(do, jobs):
        for path in here(do, jobs):
            done.append(path.stat().st_mtime_ns != before.get(path.name))
            yield path

    make(copied, out, FEW, spread=watched)
    assert done == [False, False, True, True, False, False]
    again = make(copied, tmp_path / "again", FEW)
    assert files(out) == files(tmp_path / "again") and again.used == 6


def _rewritten(file: Path, before: str, now: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, now), encoding="utf-8")


def test_a_complete_set_is_not_taken_for_one_of_more_scenes(copied, tmp_path, capsys):
    out = tmp_path / "set"
    make(copied, out, FEW)
    before = files(out)
    shutil.copytree(copied / "scene00002", copied / "scene00003")
    with pytest.raises(JoyImageError, match=r"made of other scenes: there were 6 and are 7; remove .*set, or name"):
        make(copied, out, FEW)
    (copied / "scene00001-after").rename(copied / "scene00001-later")
    shutil.rmtree(copied / "scene00003")
    assert main(["data", "make", str(copied), str(out), *COMMAND]) == 2
    assert "they had other names" in capsys.readouterr().err
    assert files(out) == before


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda out: shutil.rmtree(out / "edits" / "camera"), "edits/camera"),
        (lambda out: (out / "edits" / "move" / "00000.tar").unlink(), "edits/move"),
        (lambda out: (out / "questions.jsonl").unlink(), "questions.jsonl"),
        (lambda out: os.truncate(out / "questions.jsonl", 1000), r"questions.jsonl \(1,000 of [\d,]+ bytes\)"),
        (lambda out: next((out / "images").rglob("*.jpg")).unlink(), r"images \(\d+ of \d+ files\)"),
    ],
)
def test_a_set_that_has_lost_files_says_so(scenes, made, tmp_path, loss, told):
    out = Path(shutil.copytree(made[1], tmp_path / "set"))
    assert inspect(out).lost == () and make(scenes, out, FEW) == made[0]
    loss(out)
    with pytest.raises(JoyImageError, match=f"has lost {told}; remove"):
        make(scenes, out, FEW)
    if (out / "questions.jsonl").exists() and "bytes" not in told:
        contents = inspect(out)
        assert re.fullmatch(told, *contents.lost) and f"lost: {contents.lost[0]}" in str(contents)


def test_other_settings_and_other_scenes_are_refused(scenes, made, copied, tmp_path):
    _, out = made
    before = files(out)
    with pytest.raises(JoyImageError, match="quota was 3 and is 4; seed was 0 and is 7"):
        make(scenes, out, replace(FEW, quota=4, seed=7))
    with pytest.raises(JoyImageError, match="source was"):
        make(copied, out, FEW)
    with pytest.raises(JoyImageError, match="tasks was depth_order,relative_size,counting,grounding_3d and is none"):
        make(scenes, out, replace(FEW, tasks=("none",)))
    assert files(out) == before
    with pytest.raises(KeyboardInterrupt):
        make(copied, tmp_path / "set", FEW, spread=interrupted(2))
    (copied / "scene00000").rename(copied / "scene0000")
    with pytest.raises(JoyImageError, match="the one of number 0 was scene00000 and is scene0000"):
        make(copied, tmp_path / "set", FEW)


def test_folders_of_others_and_scenes_that_are_not_there_are_refused(scenes, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    assert main(["data", "make", str(scenes), str(tmp_path / "other"), "--quiet"]) == 2
    assert "letter.txt" in capsys.readouterr().err
    assert main(["data", "make", str(tmp_path / "none"), str(tmp_path / "out"), "--quiet"]) == 2
    assert "none" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["data", "inspect", str(tmp_path / "other")]) == 2
    assert "no data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"tasks": ("depth",)}, "tasks: nothing is called depth"),
        ({"edits": ("zoom",)}, "edits: nothing is called zoom"),
        ({"tasks": "none", "edits": "none"}, "nothing would be made"),
        ({"languages": ("fr",)}, "languages"),
        ({"languages": ()}, "languages is empty"),
        ({"format": "csv"}, "format is 'csv'"),
        ({"format": "tsv", "dialogues": True}, "dialogues"),
        ({"pictures": "webp"}, "pictures is 'webp'"),
        ({"tasks": None}, "tasks is None; give names of"),
        ({"edits": 5}, "edits is 5; give names of"),
        ({"dialogues": "no"}, "dialogues is 'no'"),
        ({"lift": 1}, "lift is 1"),
        ({"quota": 0}, "quota is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"scenes": 1.5}, "scenes is 1.5"),
        ({"views": True}, "views is True"),
        ({"megabytes": -1}, "megabytes is -1"),
        ({"marked": 1.5}, "marked is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_cannot_be_used_are_named(option, message):
    with pytest.raises(JoyImageError, match=message):
        Making(**option)


def test_limits_hold_over_all_scenes_and_end_the_work(scenes, tmp_path):
    seen = []

    def counted(do, jobs):
        for path in here(do, jobs):
            seen.append(path)
            yield path

    settings = replace(FEW, tasks=("depth_order",), edits=("camera",), limit=4)
    report = make(scenes, tmp_path / "set", settings, spread=counted)
    assert report.questions == {"depth_order": 4} and report.pairs == {"camera": 4}
    assert len(seen) == report.scenes == 2 and len(list(read_samples(tmp_path / "set"))) == 4


def test_answers_are_even(made):
    counts = {}
    for sample in read_samples(made[1]):
        for task, kind, value in sample.turns[0].keys:
            counts.setdefault((task, kind), Counter())[value] += 1
    assert counts
    for (_, kind), values in counts.items():
        if count := values_of(kind):
            bound = min(values[value] for value in range(count))
        else:
            bound = sorted([0, *values.values()])[-2]  # of what has no end, such as counts: the next frequent one
        assert max(values.values()) - bound <= AHEAD


def test_a_table_for_benchmarks_has_choices_alone(scenes, tmp_path):
    settings = replace(FEW, tasks=("depth_order", "depth_choice", "point_correspondence", "height"), format="tsv")
    report = make(scenes, tmp_path / "set", replace(settings, edits=("none",), scenes=2))
    questions = read_questions(tmp_path / "set" / "questions.tsv")
    assert len(questions) == sum(report.questions.values()) > 5 and report.questions["height"] == 0
    samples = list(read_samples(tmp_path / "set"))
    for question, sample in zip(questions, samples, strict=True):
        assert list(question.options.values()) == list(sample.turns[0].options)
        assert question.answer == sample.turns[0].answer and "\nA. " not in question.question
        assert len(question.images()) == len(sample.pictures) == (2 if sample.task == "point_correspondence" else 1)


def test_questions_about_the_very_same_pictures_can_be_a_dialogue(scenes, made, tmp_path):
    make(scenes, tmp_path / "set", replace(FEW, dialogues=True))
    alone, joined = list(read_samples(made[1])), list(read_samples(tmp_path / "set"))
    assert len(joined) < len(alone)
    assert Counter(turn for each in joined for turn in each.turns) == Counter(each.turns[0] for each in alone)
    for sample in joined:
        assert len({turn.language for turn in sample.turns}) == 1
    assert len(joined) == sum(len(list(dialogues(own))) for own in by_scene(alone).values())


def by_scene(samples):
    found = {}
    for sample in samples:
        found.setdefault(sample.scene, []).append(sample)
    return found


def test_scenes_without_boxes_are_lifted_when_asked(copied, tmp_path):
    for path in copied.glob("*/transforms.json"):
        values = json.loads(path.read_text())
        for thing in values["objects"]:
            del thing["box"]
        path.write_text(json.dumps(values))
    settings = replace(FEW, tasks=("relative_size",), edits=("none",), scenes=2)
    with pytest.raises(
        JoyImageError, match=r"scene00000: .* lift the scene first; scene00000-after: .* lift the scene"
    ):
        make(copied, tmp_path / "bare", settings)
    report = make(copied, tmp_path / "lifted", replace(settings, lift=True))
    assert report.used == 2 and not report.failed


def lifted(scene):
    """Boxes of one's own."""
    assert not scene.lifted
    return lift(scene).scene


def test_scenes_can_be_prepared_where_the_work_is_done(copied, tmp_path):
    for path in copied.glob("*/transforms.json"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "objects": [{**thing, "box": None} for thing in values["objects"]]}))
    settings = replace(FEW, tasks=("relative_size",), edits=("none",), scenes=2, seed=4)
    report = make(copied, tmp_path / "set", settings, prepare=lifted)
    assert report.used == 2 and not report.failed
    with pytest.raises(JoyImageError, match="prepare was lifted and is none"):
        make(copied, tmp_path / "set", settings)


def test_scenes_can_be_given(scenes, made, tmp_path):
    make(read_scenes(scenes), tmp_path / "set", FEW)
    assert files(tmp_path / "set") == files(made[1])


def test_given_scenes_that_are_none_or_others_are_refused(scenes, tmp_path):
    given = read_scenes(scenes)
    first = [next(given), next(given)]
    for none in ([], (each for each in ())):
        with pytest.raises(JoyImageError, match="there are no scenes, so nothing is written"):
            make(none, tmp_path / "set", FEW)
        assert not (tmp_path / "set").exists()
    assert make(first, tmp_path / "set", FEW).scenes == 2
    assert make(tuple(first), tmp_path / "set", FEW).scenes == 2
    with pytest.raises(JoyImageError, match="there were 2 and are 3"):
        make([*first, next(given)], tmp_path / "set", FEW)


def test_what_is_in_a_data_set(made, tmp_path, capsys):
    report, out = made
    contents = inspect(out)
    assert {task: sum(forms.values()) for task, forms in contents.questions.items()} == {
        task: count for task, count in report.questions.items() if count
    }
    assert contents.pairs == report.pairs and sum(contents.languages.values()) == contents.samples
    assert contents.balance["relative_size"]["side of 2"] <= AHEAD / report.questions["relative_size"]
    assert main(["data", "inspect", str(out), "--json", "--sheet", str(tmp_path / "sheet.png"), "--count", "7"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {**json.loads(json.dumps(contents.as_dict())), "sheet": str(tmp_path / "sheet.png")}


def test_the_sheet_shows_pictures_and_the_boxes_of_grounding(made, tmp_path):
    everything = Image.open(sheet(made[1], tmp_path / "a.png", 7)).convert("RGB")
    more = Image.open(sheet(made[1], tmp_path / "b.png", 20)).convert("RGB")
    green = (np.asarray(everything) == (0, 220, 0)).all(-1)
    assert green.any() and more.height > everything.height
    with pytest.raises(JoyImageError, match="count is 0"):
        sheet(made[1], tmp_path / "c.png", 0)
    assert main(["data", "inspect", str(made[1]), "--sheet", str(tmp_path / "sheet.jpg")]) == 2
    assert main(["data", "inspect", str(made[1]), "--sheet", str(tmp_path / "new" / "c.png"), "--count", "0"]) == 2
    assert not (tmp_path / "new").exists()


def test_settings_are_kept_with_the_data(made):
    about = json.loads((made[1] / "data.json").read_text())
    assert about["settings"] == json.loads(json.dumps(asdict(FEW))) and about["made"]["used"] == 6
    assert str(ROOT) not in json.dumps(about) and not (made[1] / "shards").exists()
