"""Finding things in a picture, in the library and from the command line, on drawn scenes whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyimage import JoyImage, JoyImageError, spatial
from joyimage.boxes import boxes_to_mask, locate_question
from joyimage.cli import main
from joyimage.images import read_parameters
from joyimage.locating import LOCATE_TOKENS
from joyimage.memory import Memory
from joyimage.places import box_beside, read_place
from tools.tiny import example_scenes, examples
from tools.tiny.render import render

SCENE = 0
MOVED, CAR = example_scenes.MOVED, example_scenes.VEHICLE


@pytest.fixture(scope="module")
def model():
    return JoyImage.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def scene() -> tuple[Image.Image, dict, dict[int, tuple]]:
    """A picture, what is said of it, and the true boxes of its two solids."""
    entries, scenes = examples.load_scenes()
    rendered = render(scenes[[SCENE]])
    boxes = {slot: tuple(map(int, rendered.box(slot)[0])) for slot in (MOVED, CAR)}
    return Image.open(examples.FOLDER / entries[SCENE]["file"]).convert("RGB"), entries[SCENE], boxes


def overlap(a, b) -> float:
    """Intersection over union."""
    masks = [boxes_to_mask([box], 64, 64)[0].bool() for box in (a, b)]
    return float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


def test_an_object_is_found_where_it_is(model, scene):
    picture, words, truth = scene
    for name, slot in ((words["object"], MOVED), (f"the {words['car']}", CAR)):
        (box,) = model.locate(picture, name)
        assert overlap(box, truth[slot]) > 0.7


def test_boxes_are_in_pixels_of_the_picture_as_it_is_loaded(model, scene, tmp_path):
    picture, words, truth = scene
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a right angle
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    (box,) = model.locate(tmp_path / "turned.png", words["car"])
    assert box == model.locate(picture, words["car"])[0]
    (large,) = model.locate(picture.resize((128, 128)), words["car"])
    assert max(large) > 64 and overlap([side // 2 for side in large], truth[CAR]) > 0.5


def test_the_answer_is_that_of_ask_and_is_told_piece_by_piece(model, scene):
    picture, words, _ = scene
    pieces = []
    model.locate(picture, words["car"], on_text=pieces.append)
    said = model.ask(picture, locate_question(words["car"]), temperature=0, max_new_tokens=LOCATE_TOKENS)
    assert "".join(pieces) == said and len(pieces) > 1


def test_an_answer_may_hold_several_boxes_or_none(model, scene, monkeypatch):
    picture, _, _ = scene
    answers = ['[{"bbox_2d": [0, 0, 500, 250]}, {"bbox_2d": [500, 250, 1000, 1000]}]', "I see no cup"]
    monkeypatch.setattr(type(model.encoder), "answer", lambda *_, **__: answers.pop(0))
    assert model.locate(picture, "cup") == [(0, 0, 32, 16), (32, 16, 64, 64)]
    with pytest.raises(JoyImageError, match="named no box; it answered: 'I see no cup'"):
        model.locate(picture, "cup")


@pytest.mark.parametrize("words", ["to the right of", "to the left of", "next to"])
def test_a_place_in_words_is_beside_what_was_found(model, scene, words):
    picture, said, truth = scene
    where = f"{words} the {said['object']}"
    found = model.locate(picture, said["car"])[0], model.locate(picture, f"the {said['object']}")[0]
    expected = box_beside(read_place(where).relation, *found, *picture.size)
    if expected is None:
        with pytest.raises(JoyImageError, match=f"no room in the picture for the {said['car']} {where}"):
            model.place(picture, said["car"], where)
    else:
        assert model.place(picture, said["car"], where) == expected
        assert overlap(expected, truth[MOVED]) < 0.15


def test_a_place_without_a_relation_is_found_as_it_is_called(model, scene):
    picture, words, _ = scene
    assert model.place(picture, words["object"], words["car"]) == model.locate(picture, words["car"])[0]


def test_where_something_is_takes_the_objects_own_size(model, scene):
    picture, words, truth = scene
    box = model.place(picture, words["object"], f"where the {words['car']} is")
    assert overlap(box, truth[CAR]) > 0.2
    assert abs((box[0] + box[2]) - (truth[CAR][0] + truth[CAR][2])) <= 4


def test_to_the_left_is_from_where_the_object_is(model, scene):
    picture, words, truth = scene
    slot = CAR if truth[CAR][0] > truth[MOVED][0] else MOVED
    box = model.place(picture, words["car" if slot == CAR else "object"], "to the left")
    assert box[2] <= truth[slot][0] + 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, picture: model.locate(picture, " "), "object to locate is empty"),
        (lambda model, picture: model.locate(picture, 7), "object to locate must be text"),
        (lambda model, picture: model.locate(picture, "cup \ud800"), "holds '\\\\ud800'"),
        (lambda model, picture: model.place(picture, "", "on the table"), "object to locate is empty"),
        (lambda model, picture: model.place(picture, "cup", " "), "place must be described in words"),
        (lambda model, picture: model.place(picture, "cup", None), "the place must be text"),
        (lambda model, picture: model.locate("nowhere.png", "cup"), "nowhere.png"),
        (lambda model, picture: model.locate(picture, "cup", on_text=7), "on_text must take"),
        (lambda model, picture: model.place(picture, "cup", "to the left", on_text=7), "on_text must take"),
        (lambda model, picture: model.ask(picture, on_text=7), "on_text must take"),
    ],
)
def test_bad_requests_are_refused_before_any_work(model, scene, monkeypatch, call, message):
    monkeypatch.setattr(Memory, "at_work", lambda *_: pytest.fail("weights were moved"))
    with pytest.raises(JoyImageError, match=message):
        call(model, scene[0])


def test_within_a_memory_the_encoder_is_visited_once(model, scene, monkeypatch):
    picture, words, _ = scene
    small, visits = JoyImage.load("tiny", device="cpu", memory="19MB"), []
    at_work = Memory.at_work

    def counted(self, name, *rest):
        visits.append(name)
        return at_work(self, name, *rest)

    monkeypatch.setattr(Memory, "at_work", counted)
    where = f"where the {words['car']} is"
    assert small.place(picture, words["object"], where) == model.place(picture, words["object"], where)
    assert visits == ["encoder", "encoder"]  # one of each model


@pytest.fixture
def folder(tmp_path, monkeypatch, scene):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOYIMAGE_MODEL", raising=False)
    scene[0].save("photo.png")
    return tmp_path


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "photo.png")


def test_locate_prints_boxes_and_writes_mask_and_drawing(folder, capsys, model, scene):
    picture, words, _ = scene
    assert main(["locate", "photo.png", words["car"], "--mask", "mask.png", "--draw", "new", "--device", "cpu"]) == 0
    output = capsys.readouterr()
    boxes = model.locate(picture, words["car"])
    assert output.out.splitlines() == [",".join(map(str, box)) for box in boxes]
    assert output.err.splitlines()[-2:] == ["mask.png", str(Path("new/photo-draw.png"))]
    mask = np.asarray(Image.open("mask.png"))
    assert np.array_equal(mask == 255, boxes_to_mask(boxes, 64, 64)[0].numpy() == 1) and set(np.unique(mask)) == {
        0,
        255,
    }
    assert Image.open("new/photo-draw.png").tobytes() == spatial.draw_box(picture, boxes[0]).tobytes()
    told = read_parameters("mask.png")
    assert told == read_parameters("new/photo-draw.png")
    assert (told["object"], told["boxes"], told["images"]) == (words["car"], [list(boxes[0])], ["photo.png"])


def test_locate_for_programs(folder, capsys, model, scene):
    picture, words, _ = scene
    assert main(["locate", "photo.png", words["car"], "--json", "--draw", "out.png", "--device", "cpu"]) == 0
    boxes = [list(box) for box in model.locate(picture, words["car"])]
    report = json.loads(capsys.readouterr().out)
    assert report == {"image": "photo.png", "object": words["car"], "boxes": boxes, "draw": "out.png"}
    assert written(folder) == ["out.png"]


def test_an_edit_moves_to_a_place_in_words(folder, capsys, scene, model):
    picture, words, _ = scene
    where, fast = f"where the {words['car']} is", ["--steps", "1", "--quiet", "--device", "cpu"]
    assert main(["edit", "photo.png", "--move", words["object"], "--to", where, "-o", "words.png", *fast]) == 0
    box = ",".join(map(str, model.place(picture, words["object"], where)))
    assert f"joyimage: note: {where} is --box {box}" in capsys.readouterr().err.splitlines()
    assert main(["edit", "photo.png", "--move", words["object"], "--box", box, "-o", "box.png", *fast]) == 0
    assert Image.open("words.png").tobytes() == Image.open("box.png").tobytes()
    told = read_parameters("words.png")
    assert told["prompt"] == spatial.move_object(words["object"]) and told["box"] == [*map(int, box.split(","))]


BAD = [
    (["locate", "nowhere.png", "cup"], "nowhere.png"),
    (["locate", "photo.png", " "], "object to locate is empty"),
    (["locate", "photo.png", "cup \udce9"], "holds '\\udce9'"),
    (["locate", "photo.png", "cup", "--mask", "mask.jpg"], "mask.png"),
    (["locate", "photo.png", "cup", "--mask", "a.png", "--draw", "a.png"], "--mask and --draw both name a.png"),
    (["locate", "photo.png", "cup", "--mask", "./photo.png"], "photo.png is read, so it is not replaced"),
    (["locate", "photo.png", "cup", "--draw", "photo.png"], "photo.png is read, so it is not replaced"),
    (["reason", "photo.png", "How many?", "-o", "photo.png"], "photo.png is read, so it is not replaced"),
    (["edit", "photo.png", "--move", "cup"], "--box LEFT,TOP,RIGHT,BOTTOM in its pixels or --to"),
    (["edit", "photo.png", "--move", "cup", "--to", "on the table", "--box", "1,2,3,4"], "--to"),
    (["edit", "photo.png", "--move", "cup", "--to", " "], "place must be described in words"),
    (["edit", "photo.png", "--move", "cup", "--to", "on \udce9"], "holds '\\udce9'"),
    (["edit", "photo.png", "Remove it.", "--to", "on the table"], "--to goes with --move"),
    (["edit", "photo.png", "Remove it.", "--box", "1,2,3,4"], "--box goes with --move"),
    (["edit", "photo.png", "--rotate", "cup", "--view", "left", "--box", "1,2,3,4"], "--box goes with --move"),
    (["edit", "photo.png", "--camera", "10", "--view", "left"], "--view goes with --rotate"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_gives_one_line_and_code_2(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr("joyimage.pipeline.JoyImage.load", lambda *_, **__: pytest.fail("weights were opened"))
    assert main(arguments) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("joyimage: error: ") and message in error
    assert written(folder) == []


def test_what_is_not_found_gives_code_2_and_no_file(folder, capsys):
    question = "Is the red cube to the left or to the right of the blue cube?"
    assert main(["locate", "photo.png", question, "--mask", "mask.png", "--device", "cpu"]) == 2
    assert "the model named no box; it answered: '" in capsys.readouterr().err
    assert written(folder) == []
