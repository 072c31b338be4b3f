"""Wishes and near-misses brought into the trained sentences: to the letter, numbers kept, nothing guessed."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from joyimage import numerals, prompts, spatial, wishes


def view(yaw: float = 0, pitch: float = 0, zoom: str = "unchanged") -> str:
    return spatial.camera(yaw, pitch, zoom)


def turned(side: str, obj: str = "car") -> str:
    return spatial.rotate_object(obj, side)


MOVED = spatial.move_object("cup")
ROTATIONS = [
    ("turn the car so that we see its left side", turned("left")),
    ("Rotate the car to show the left side", turned("left")),
    ("rotate my car to show the left front view.", turned("front left")),
    ("Please turn the car around so I can see the back of it!", turned("rear")),
    ("Could you turn the car, so that its right side faces us?", turned("right")),
    ("Spin the car to see it from behind", turned("rear")),
    ("Turn the car to its right side.", turned("right")),
    ("Rotate the car to a rear-left view", turned("rear left")),
    ("Turn the woman in red to face the camera", turned("front", "woman in red")),
    ("ROTATE THE CAR TO SHOW THE LEFT SIDE VIEW", turned("left")),
    ("Rotate the car to show the front side view. Keep everything else unchanged.", turned("front")),
    ("把汽车转到左侧面", turned("left", "汽车")),
    ("请把汽车旋转到左前方视图。", turned("front left", "汽车")),
    ("把车转过来，让我们看到它的右侧", turned("right", "车")),
    ("旋转椅子，显示背面", turned("rear", "椅子")),
]
CAMERAS = [
    ("turn the camera 45 degrees to the left", view(-45)),
    ("Rotate the camera right by 30°.", view(30)),
    ("Turn the camera thirty-five degrees to the left, then zoom out", view(-35, 0, "out")),
    ("Orbit the camera 90 degrees around the scene to the right and zoom in", view(90, 0, "in")),
    ("turn the camera 37 degrees", view(37)),
    ("move the camera 20 degrees up", view(0, 20)),
    ("Lower the camera by 15 degrees", view(0, -15)),
    ("turn the camera to the left", view(-wishes.TURN)),
    ("look from above", view(0, wishes.RISE)),
    ("Look at the scene from below, please.", view(0, -wishes.RISE)),
    ("zoom in", view(zoom="in")),
    ("Move the camera closer.", view(zoom="in")),
    ("move the camera further away", view(zoom="out")),
    ("Move the camera. Yaw 12.5, pitch -7, zoom: closer", view(12.5, -7, "in")),
    ("Camera rotation: Yaw 45 degrees", view(45)),
    ("yaw 270", view(-90)),
    ("镜头向左转45度", view(-45)),
    ("把镜头向右旋转三十度，然后拉近", view(30, 0, "in")),
    ("从上面看", view(0, wishes.RISE)),
    ("仰视", view(0, -wishes.RISE)),
    ("拉远镜头", view(zoom="out")),
]
OTHERS = [
    ("put my cup in the red rectangle and then remove it", MOVED),
    ("Move the cup to the red box.", MOVED),
    ("把杯子移到红框里，最后删除红框", spatial.move_object("杯子")),
    ("Colorize this old photo", prompts.COLOURISE),
    ("Restore and colourise the black and white photograph.", prompts.COLOURISE),
    ("给这张黑白老照片上色", prompts.COLOURISE),
    ("perform inpainting on the image. original caption: A dog\n in Rome.", prompts.INPAINT + "A dog in Rome."),
    ("Extend the picture using outpainting. The caption is: 3 boats", prompts.OUTPAINT + "3 boats"),
]


@pytest.mark.parametrize(("wish", "expected"), ROTATIONS + CAMERAS + OTHERS, ids=lambda text: text[:40])
def test_a_plain_wish_becomes_its_sentence(wish, expected):
    assert wishes.sentence(wish).text == expected


@pytest.mark.parametrize(
    "text",
    [
        "turn the car to the left",  # the way to turn, or the side that is seen?
        "Rotate the car to the left side.",
        "把汽车转到左边",
        "Rotate the car to show the other side.",
        "Rotate the car to show the top",
        "rotate the car 90 degrees to show the left side",  # the sentence has no place for the number
        "Turn the car red and rotate the dog to show the left side",
        "Rotate it to show the left side.",
        "Rotate the camera to show the left side.",
        "Rotate the picture.",
        "show the car from behind",  # the car turned, or the camera?
        "tilt the camera up 20 degrees",
        "pan left",
        "zoom in on the cup",
        "look at the cup from above and make it red",
        "turn the camera 45 degrees to the left and make the sky red",
        "turn the camera 20 degrees left and 30 degrees to the right",
        "Move the camera.",
        "Move the camera. Camera zoom: in/out/unchanged.",
        "zoom in, zoom out",
        "Move the cup to the left.",
        "Move the cup and the plate into the red box and paint the wall",
        "colorize the hair red",
        "Restore and colorize the photo, but keep the dress blue.",
        "Perform inpainting on this image.",
        "Perform inpainting on this image. The original caption is: ",
        "Make it night.",
        "a view of a city from above",
        "把天空变成红色",
        "",
        "Rotate the car to show the left side. " * 20,
    ],
)
def test_what_is_unclear_or_more_than_a_sentence_is_left_alone(text):
    assert wishes.sentence(text) is None


@pytest.mark.parametrize("name", ["apple", "armchair", "analogue clock", "thermos", "theatre", "mystery box", "yourt"])
def test_a_name_that_begins_like_an_article_stays_whole(name):
    assert wishes.sentence(f"turn {name} so that we see its left side").text == turned("left", name)
    assert wishes.sentence(f"turn my {name} so that we see its left side").text == turned("left", name)


@pytest.mark.parametrize(
    "text", ["Move the  into the red box.", "Rotate the to show the left side", "把这张转到左侧面"]
)
def test_an_article_alone_is_no_object(text):
    assert wishes.sentence(text) is None


def test_notes_say_what_was_read_into_a_wish():
    assert wishes.sentence("look from above").notes == ("'look from above' was read as 30 degrees",)
    assert wishes.sentence("turn the camera 37 degrees").notes == (
        "'turn the camera 37 degrees' was read as a turn to the right",
    )
    assert wishes.sentence("turn the camera 45 degrees to the left").notes == ()


OBJECTS = st.sampled_from(["car", "red cup", "woman in the blue dress", "cat on the left", "dog's bowl", "杯子"])
DEGREES = st.one_of(st.integers(-179, 180), st.sampled_from([0.5, -12.25, 33.3]))
EXACT = st.one_of(
    st.builds(spatial.move_object, OBJECTS),
    st.builds(spatial.rotate_object, OBJECTS, st.sampled_from(spatial.VIEWS)),
    st.builds(spatial.camera, DEGREES, st.integers(-90, 90), st.sampled_from(spatial.ZOOMS)),
)
MUTATIONS = {
    "small first letter": lambda text: text[0].lower() + text[1:],
    "fixed words in capitals": lambda text: re.sub(
        r"Rotate the|Move the|to show the|into the", lambda m: m[0].upper(), text
    ),
    "no full stop": lambda text: text.removesuffix("."),
    "exclamation": lambda text: text.removesuffix(".") + "!",
    "please": lambda text: f"Please {text}",
    "please at the end": lambda text: text.removesuffix(".") + ", please.",
    "one line": lambda text: text.replace("\n", " "),
    "no bullets": lambda text: text.replace("\n- ", "\n"),
    "more space": lambda text: text.replace(" ", "  ").replace("\n", "\n\n"),
    "degrees": lambda text: text.replace("°", " degrees"),
    "no degrees": lambda text: text.replace("°", ""),
    "full-width signs": lambda text: text.replace(",", "，").replace(":", "：").replace(".\n", "。\n"),
    "other order": lambda text: re.sub(r"(front|rear) (left|right) side", r"\2 \1 side", text),
    "back": lambda text: re.sub(r"\brear\b(?=.*side view)", "back", text),
    "view": lambda text: text.replace(" side view.", " view."),
    "side": lambda text: text.replace(" side view.", " side."),
    "turn": lambda text: re.sub(r"^Rotate", "Turn", text),
    "zoom in": lambda text: text.replace("zoom: ", "zoom: zoom ") if "unchanged." not in text else text,
    "closer": lambda text: text.replace("zoom: in", "zoom: closer").replace("zoom: out", "zoom: further"),
    "then remove it": lambda text: text.replace("and finally remove the red box", ", then remove the box"),
    "red frame": lambda text: text.replace("red box", "red frame"),
    "static": lambda text: text.replace("; only change the viewpoint", ""),
    "rest": lambda text: f"{text} Keep everything else the same.",
}


@given(EXACT)
def test_an_exact_sentence_stays(text):
    found = wishes.sentence(f" {text}\n")
    assert (found.text, found.notes) == (text, ())
    assert wishes.near_miss(text) is None


@given(EXACT, st.lists(st.sampled_from(sorted(MUTATIONS)), min_size=1, max_size=3, unique=True))
@example(spatial.camera(0, 0, "in"), ["closer", "zoom in"])  # "zoom: zoom closer"
def test_a_changed_sentence_is_repaired(text, names):
    changed = text
    for name in names:
        changed = MUTATIONS[name](changed)
    assert wishes.sentence(changed).text == text
    if spatial.parse(changed).problems:
        assert wishes.near_miss(changed).instruction.text == text


@given(st.text(max_size=80))
def test_any_text_is_read_without_an_error(text):
    found = wishes.sentence(text)
    assert (
        found is None
        or spatial.parse(found.text).instruction
        or found.text.startswith((prompts.COLOURISE, prompts.INPAINT, prompts.OUTPAINT))
    )


def test_a_near_miss_offers_what_is_meant():
    warning = wishes.near_miss("rotate the car to show the left side")
    assert warning.instruction == spatial.Rotate("car", "left")
    assert f"Did you mean:\n{turned('left')}\n" in str(warning) and "--rotate" in str(warning)
    unclear = wishes.near_miss("Move the camera.")
    assert unclear.instruction is None and "Did you mean" not in str(unclear)
    assert wishes.near_miss("Make it night.") is None


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        ("outpaint this to the left", "outpaint"),
        ("extend the photo on both sides", "outpaint"),
        ("把画面向右外扩", "outpaint"),
        ("fill in the missing areas", "inpaint"),
        ("inpaint it", "inpaint"),
        ("把空白处补全", "inpaint"),
        ("colorize this old photo of my grandfather", "colourise"),
        ("把这张老照片修复一下，然后上色", "colourise"),
        ("fill the glass with milk", None),
        ("extend the table", None),
        ("colorize her hair", None),
        ("给裙子上色", None),
    ],
)
def test_what_a_wish_must_become(wish, kind):
    found = wishes.expected(wish)
    assert (found and found.kind) == kind


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("12.5", 12.5), ("- 3", -3), ("nineteen", 19), ("forty-five", 45), ("Sixty", 60),
        ("one hundred and twenty", 120),
        ("十", 10), ("三十", 30), ("四十五", 45), ("一百八十", 180), ("一百零五", 105), ("两", 2),
    ],
)  # fmt: skip
def test_numbers_in_words(words, number):
    assert numerals.value(words) == number


def test_which_numbers_a_text_names():
    text = "Add 3 birds, 1,200 stars and 2.5 m of 3D rope in 4K, as in the 1980s; 3 times, 向左转45度。"
    assert numerals.named(text) == [3, 1200, 2.5, 45]
    assert {1, 2, 3, 12, 1500} <= numerals.told("the first of two dogs, 三只 cats, twelve cups and 1,500 ants")
