"""Names of objects in other words: what a table says, and what questions, checks and sentences make of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scans import Thing, nerfstudio, shoot

from joyimage.cli import main
from joyimage.errors import JoyImageError
from joyimage.spatialdata import TASKS, Making, inspect, make
from joyimage.spatialdata.cameras import Pinhole, looking_at
from joyimage.spatialdata.checking.truth import Truth
from joyimage.spatialdata.index import index_scene
from joyimage.spatialdata.inspecting.contents import read_pairs, read_samples
from joyimage.spatialdata.oriented import OrientedBox
from joyimage.spatialdata.questions.form import Asking
from joyimage.spatialdata.readers import read_scenes
from joyimage.spatialdata.tasks import check, make_questions
from joyimage.spatialdata.translations import Translations, read_translations
from tools.tiny import captures
from tools.tiny import scenes as world

pytest.importorskip("scipy")
LATIN = re.compile("[A-Za-z]{2,}")
CHINESE = re.compile("[\u4e00-\u9fff]")
TABLE = {
    "cupboard": "柜子",
    "chair": "椅子",
    "sofa": "沙发",
    "couch": "沙发",
    "kitchen_stool": {"en": "stool", "zh": "凳子"},
}
PLACES = {
    "cupboard": [0, 0.4, 0.6, 0.9, 0.5, 1.2], "chair": [1.1, -0.9, 0.4, 0.5, 0.5, 0.8],
    "sofa": [-1.0, -0.8, 0.3, 0.8, 0.6, 0.6], "couch": [-1.1, 1.0, 0.4, 0.9, 0.5, 0.8],
    "kitchen_stool": [0.2, -1.5, 0.25, 0.4, 0.4, 0.5],
}  # fmt: skip
EYES = ([0, -5, 2.5], [4, -3, 2.2], [4.2, 2.5, 2.6], [-3.8, -3, 2.4])


def write(folder) -> None:
    intrinsic = np.array([[90, 0, 48], [0, 90, 36], [0, 0, 1]])
    things = [Thing(name, OrientedBox.upright(place[:3], place[3:])) for name, place in PLACES.items()]
    cameras = [Pinhole(intrinsic, looking_at(np.array(eye), np.array([0, 0, 0.4])), 96, 72) for eye in EYES]
    nerfstudio(folder, [shoot(camera, things) for camera in cameras], things)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    write(made := tmp_path_factory.mktemp("scenes") / "room")
    return made


@pytest.fixture(scope="module")
def scene(folder):
    return next(read_scenes(folder))


def asked(scene, table, languages=("zh",), quota=6):
    index, truth = index_scene(scene), Truth(scene, table)
    asking = Asking(languages=languages, translations=table)
    return [(question, truth) for question in make_questions(index, dict.fromkeys(TASKS, quota), asking)]


def test_questions_in_chinese_call_objects_by_their_chinese_names(scene):
    found = asked(scene, TABLE)
    assert len({question.task for question, _ in found}) >= 15
    for question, truth in found:
        said = re.sub(r"JSON|“label”|“bbox_3d”", "", question.text)
        assert question.language == "zh" and not LATIN.search(said) and "“" not in said, question.text
        assert check(truth, question), (question.text, question.answer)
    boxes = [question for question, _ in found if question.task == "grounding_3d"]
    labels = {entry["label"] for question in boxes for entry in json.loads(question.answer)}
    assert labels and labels <= {"柜子", "椅子", "沙发", "凳子"}


def test_two_labels_of_one_word_are_one_kind(scene):
    """In Chinese both are to be marked, and are counted together; in English each has its own name."""
    words = Translations(TABLE)
    assert words.word("Sofa", "zh") == words.word("couch", "zh") == "沙发"
    both = {thing.number for thing in scene.objects if thing.category in ("sofa", "couch")}
    found = asked(scene, TABLE)
    counts = [question for question, _ in found if question.task == "counting"]
    both_counted = [question for question in counts if question.said == "2"]
    assert both_counted and all("沙发" in question.text for question in both_counted)
    named = [question for question, _ in found if both & set(question.names) and question.task == "relative_size"]
    for question in named:
        assert both & set(question.names) <= {mark.number for mark in question.marks}
    english = [question for question, _ in asked(scene, TABLE, ("en",)) if question.task == "counting"]
    assert english and {question.said for question in english} == {"1"}


def test_without_a_table_english_names_are_quoted(scene):
    found = [question for question, _ in asked(scene, {}) if question.task == "relative_size"]
    assert found and all(re.search(r"“\w+”", question.text) for question in found)


def test_what_has_no_chinese_name_is_asked_about_in_english(scene):
    table = {name: words for name, words in TABLE.items() if name != "cupboard"}
    found = asked(scene, table, ("en", "zh"), 8)
    languages = {question.language for question, _ in found if "cupboard" in question.text}
    assert languages == {"en"} and {question.language for question, _ in found} == {"en", "zh"}
    for question, truth in found:
        assert check(truth, question)
        assert question.language == "zh" or not CHINESE.search(question.text + question.answer)
        assert question.language == "en" or "cupboard" not in question.text
    alone = asked(scene, table, ("zh",), 8)
    assert alone and not [question for question, _ in alone if "cupboard" in question.text]


def test_english_names_can_be_others_too(scene):
    texts = [question.text for question, _ in asked(scene, TABLE, ("en",))]
    assert any("stool" in text for text in texts) and not any("kitchen_stool" in text for text in texts)
    for question, truth in asked(scene, TABLE, ("en",)):
        assert check(truth, question)


@pytest.mark.parametrize(
    ("description", "language", "words"),
    [("red car", "zh", "红色汽车"), ("big red car", "zh", None), ("car by the door", "zh", "门边的车"),
     ("old car by it", "zh", None), ("red car", "en", "red auto"), ("红车", "zh", "红车"),
     ("Car by the Door", "en", "Car by the Door")],
)  # fmt: skip
def test_descriptions_are_translated_whole_or_by_their_parts(description, language, words):
    table = {"car": {"zh": "汽车", "en": "auto"}, "red": "红色", "car by the door": "门边的车"}
    assert Translations(table).words(description, "car", language) == words


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("a.json", "[1]", "a.json: translations must be a table from English names"), ("a.json", "{", "a.json is no JSON"),
     ("a.json", '{"chair": 5}', "'chair' has 5; it must have a Chinese name"),
     ("a.json", '{"chair": ""}', "in zh is empty"),
     ("a.json", '{"chair": {"fr": "chaise"}}', "'chair' has {'fr': 'chaise'}; it must"),
     ("a.json", '{"chair": "椅子", "Chair": "凳子"}', "'chair' is named twice"),
     ("a.tsv", "chair\t椅子\nsofa", "a.tsv: line 2 is 'sofa'; it must be a name, a tab and its name in zh"),
     ("a.tsv", "chair\t椅子\nchair\t凳子", "line 2 names 'chair' a second time"),
     ("a.tsv", "chair\t椅子\t\n", "line 1 is 'chair\\\\t椅子\\\\t'"), ("b.json", None, "there is no .*b.json")],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_told(tmp_path, folder, capsys, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(JoyImageError, match=message):
        read_translations(path)
    assert main(["data", "make", str(folder), str(tmp_path / "set"), "--translations", str(path), "--quiet"]) == 2
    assert str(path) in capsys.readouterr().err and not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", '{"chair": "椅子", "Kitchen stool": {"en": "stool", "zh": "凳子"}}'),
     ("a.tsv", "\ufeff# names\nname\ten\tzh\nchair\t\t椅子\n\nKitchen stool\tstool\t凳子\n")],
)  # fmt: skip
def test_tables_are_json_or_lines(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_translations(tmp_path / name) == {
        "Kitchen stool": {"en": "stool", "zh": "凳子"},
        "chair": {"zh": "椅子"},
    }


def test_the_command_takes_a_table_and_says_what_it_lacks(tmp_path, folder, capsys):
    table = {name: words for name, words in TABLE.items() if name != "cupboard"}
    lines = (f"{name}\t{word}\n" for name, word in _short(table).items())
    (tmp_path / "names.tsv").write_text("".join(lines), encoding="utf-8")
    few = ["--tasks", "relative_size,counting", "--edits", "none", "--translations", str(tmp_path / "names.tsv")]
    assert main(["data", "make", str(folder), str(tmp_path / "set"), "--quiet", *few]) == 0
    said = capsys.readouterr()
    assert "1 names have no translation: cupboard" in said.err
    assert inspect(tmp_path / "set").unnamed == ("cupboard",) and "cupboard" in str(inspect(tmp_path / "set"))
    texts = [turn.text for sample in read_samples(tmp_path / "set") for turn in sample.turns]
    assert any("椅子" in text or "沙发" in text for text in texts)
    settings = {"tasks": ("relative_size", "counting"), "edits": ("none",)}
    assert make(folder, tmp_path / "set", Making(translations=_short(table), **settings)).unnamed == ("cupboard",)
    with pytest.raises(JoyImageError, match="translations are others"):
        make(folder, tmp_path / "set", Making(translations={"chair": "凳子"}, **settings))


def _short(table) -> dict[str, str]:
    return {name: words if isinstance(words, str) else words["zh"] for name, words in table.items()}


def test_the_table_of_drawn_scenes_has_all_their_words(tmp_path):
    table = read_translations(Path(captures.__file__).with_name("names.tsv"))
    assert set(table) == {*world.KINDS, *world.COLOUR_NAMES}
    captures.make(tmp_path, 2, seed=3, size=96, shares=(0, 0, 0, 1))
    for scene in read_scenes(tmp_path):
        found = asked(scene, table)
        assert found and not any("“" in question.text.partition("JSON")[0] for question, _ in found)
        assert all(check(truth, question) for question, truth in found)


def test_sentences_of_edit_pairs_have_english_words(tmp_path):
    for name, state in (("room", ""), ("room-after", "room")):
        write(tmp_path / "scenes" / name)
        file = tmp_path / "scenes" / name / "transforms.json"
        values = json.loads(file.read_text())
        if state:
            (stool,) = [thing for thing in values["objects"] if thing["category"] == "kitchen_stool"]
            stool["box"][0] += 0.2
        file.write_text(json.dumps({**values, "state_of": state}))
    settings = Making(tasks=("none",), edits=("move",), translations=TABLE)
    made = make(tmp_path / "scenes", tmp_path / "set", settings)
    assert made.unnamed == ()
    assert {pair.text.partition(" into")[0] for pair in read_pairs(tmp_path / "set")} == {"Move the stool"}
