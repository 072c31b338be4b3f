"""LongText-Bench: what counts of a text, what is read of pictures, and the pooled score."""

from __future__ import annotations

import json

import pytest
from PIL import Image, ImageDraw, ImageFont

from joyimage import JoyImage
from joyimage.errors import JoyImageError
from joyimage.evaluation import longtext
from joyimage.evaluation.longtext import Prompt, Recall, recall, units
from joyimage.evaluation.predicting import make_all
from joyimage.evaluation.settings import Sampled
from joyimage.images import read_parameters

LINE = '{"prompt": "p", "text": "a"}'
PROMPTS = [
    Prompt(7, "A sign.", ("Open today", "closed"), "sign"),
    Prompt(12, "A poster.", ("Big sale!",), "poster"),
]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Hello,  World!\nIt's 5 o'clock", "en", ["hello", "world", "its", "5", "oclock"]),
        ("Café — DÉJÀ vu", "en", ["café", "dÉjÀ".lower(), "vu"]),
        ("你好， 世界 2026!", "zh", list("你好世界2026")),
        ("\u2026 --", "en", []),
    ],
)
def test_what_counts_of_a_text(text, language, expected):
    assert units(text, language) == expected


@pytest.mark.parametrize(
    ("read", "matched"),
    [
        ("open today closed", 3),
        ("CLOSED! Open, today?", 3),  # neither order nor case nor signs
        ("open open open", 1),  # each as often as it is there
        ("open today closed and much more", 3),
        ("opened", 0),
        ("", 0),
    ],
)
def test_recall_of_words(read, matched):
    assert recall(("Open today", "closed"), read, "en") == Recall(matched, 3)


def test_recall_of_chinese_characters():
    assert recall(("今天营业", "营业时间"), "营业今天，时", "zh") == Recall(5, 8)


def test_nothing_to_read_is_no_division():
    assert Recall(0, 0).value == 0


def test_prompts_are_read(tmp_path):
    rows = [
        {"category": "sign", "length": "short", "prompt": "A sign.", "text": ["a", "b"], "prompt_id": 3},
        {"prompt": "A page.", "text": "one"},
    ]
    (tmp_path / "text_prompts.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert longtext.read_prompts(tmp_path) == [
        Prompt(3, "A sign.", ("a", "b"), "sign", "short"),
        Prompt(1, "A page.", ("one",)),
    ]
    (tmp_path / "text_prompts_zh.jsonl").write_text(json.dumps(rows[0] | {"text": ["今天"]}))
    assert len(longtext.read_prompts(tmp_path, "zh")) == 1
    assert PROMPTS[0].picture(tmp_path, 2).name == "0007_2.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: it is no JSON with prompt"),
        ('{"prompt": "p"}', "line 1: it is no JSON with prompt"),
        ('{"prompt": " ", "text": ["a"]}', "line 1: its prompt is empty"),
        ('{"prompt": 3, "text": ["a"]}', "prompt must be text"),
        ('{"prompt": "p", "text": {"a": 1}}', "text a list of texts"),
        ('{"prompt": "p", "text": ["a", null]}', "text a list of texts"),
        ('{"prompt": "p \\ud800", "text": ["a"]}', "line 1: a text holds"),
        ('{"prompt": "p", "text": []}', "text a list of texts"),
        (
            '{"prompt": "p", "text": "a"}\n' * 2 + '{"prompt": "p", "text": "a", "prompt_id": 1}',
            "prompt_id 1 is there twice",
        ),
        ("\n", "holds no prompts"),
        ("[" * 5000, "line 1: it is no JSON with prompt"),
        ('{"prompt": "p", "text": "a", "prompt_id": 1e999}', "line 1: its prompt_id is inf"),
        ('{"prompt": "p", "text": "a", "prompt_id": 7.9}', "line 1: its prompt_id is 7.9"),
        ('{"prompt": "p", "text": "a", "prompt_id": true}', "line 1: its prompt_id is True"),
        ('{"prompt": "p", "text": "a", "prompt_id": -1}', "line 1: its prompt_id is -1"),
        ('{"prompt": "p", "text": "a", "prompt_id": 1' + "0" * 300 + "}", "line 1: its prompt_id is 1000"),
        ('{"prompt": "p", "text": "\u2026 --"}', "nothing that counts"),
        ('{"prompt": "p", "text": "\u4eca\u5929\u8425\u4e1a, OK"}', "give --language zh"),
    ],
)
def test_malformed_prompts_are_named(tmp_path, text, message):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(JoyImageError, match=message):
        longtext.read_prompts(tmp_path / "p.jsonl")
    with pytest.raises(JoyImageError, match="there is no"):
        longtext.read_prompts(tmp_path)


def test_english_texts_are_not_counted_by_characters(tmp_path):
    (tmp_path / "p.jsonl").write_text(LINE)
    with pytest.raises(JoyImageError, match="give --language en"):
        longtext.read_prompts(tmp_path / "p.jsonl", "zh")


def test_only_ends_of_lines_end_a_prompt(tmp_path):
    text = '{"prompt": "one\u2028two\x85", "text": "a"}\r\n' + LINE
    (tmp_path / "p.jsonl").write_text(text, encoding="utf-8", newline="")
    assert [prompt.prompt for prompt in longtext.read_prompts(tmp_path / "p.jsonl")] == ["one\u2028two\x85", "p"]


def test_a_category_called_all_is_not_the_whole(tmp_path):
    prompts = [Prompt(1, "p", ("a",), "all"), Prompt(2, "p", ("b",), "sign")]
    readings = [longtext.Reading(each, tmp_path, "a", recall(each.texts, "a", "en")) for each in prompts]
    found = longtext.figures(readings)
    assert found["all"] == {"recall": 0.5, "pictures": 2} and found["category all"] == {"recall": 1, "pictures": 1}


def picture(folder, prompt: Prompt, repeat: int, text: str) -> None:
    """A picture that shows a text, which its reader finds by its pixels."""
    image = Image.new("RGB", (240, 40), "white")
    ImageDraw.Draw(image).text((4, 4), text, fill="black", font=ImageFont.load_default(16))
    image.save(prompt.picture(folder, repeat))
    READ[image.tobytes()] = text


READ: dict[bytes, str] = {}


def test_the_score_is_pooled_and_missing_pictures_are_left_out(tmp_path):
    picture(tmp_path, PROMPTS[0], 1, "open today closed")
    picture(tmp_path, PROMPTS[0], 2, "open")
    picture(tmp_path, PROMPTS[1], 1, "nothing")
    asked = []

    def reader(image):
        asked.append(image)
        return READ[image.tobytes()]

    readings = longtext.read(PROMPTS, tmp_path, reader, "mine", "en", 2)
    found = longtext.figures(readings)
    assert found["all"] == {"recall": pytest.approx((3 + 1 + 0) / (3 + 3 + 2)), "pictures": 3}
    assert found["poster"] == {"recall": 0, "pictures": 1}
    report = longtext.report(readings, {})
    assert report.about == {"items": 4, "missing": 1}
    assert [row.name for row in report.worst_first] == ["0012_2", "0012_1", "0007_2", "0007_1"]
    longtext.read(PROMPTS, tmp_path, reader, "mine", "en", 2)
    assert len(asked) == 3  # none is read twice


def test_prompts_of_another_encoding_are_named(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "caf\xe9", "text": "a"}')
    with pytest.raises(JoyImageError, match=r"p\.jsonl is no text in UTF-8"):
        longtext.read_prompts(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text(LINE, encoding="utf-8-sig")
    assert longtext.read_prompts(tmp_path / "p.jsonl") == [Prompt(0, "p", ("a",))]


def test_a_reader_that_fails_is_named(tmp_path):
    def fail(image):
        raise KeyError("font")

    picture(tmp_path, PROMPTS[0], 1, "open")
    with pytest.raises(JoyImageError, match="the tool mine failed: KeyError: 'font'"):
        longtext.read(PROMPTS, tmp_path, fail, "mine", "en", 1)


def test_a_reader_must_give_text(tmp_path):
    picture(tmp_path, PROMPTS[0], 1, "open")
    with pytest.raises(JoyImageError, match="gives list for"):
        longtext.read(PROMPTS, tmp_path, lambda image: ["open"], "mine", "en", 1)


@pytest.mark.slow
def test_each_repeat_has_the_seed_that_follows(tmp_path):
    model = JoyImage.load("tiny", device="cpu")
    wanted = longtext.wanted(PROMPTS[:1], tmp_path, Sampled(1, 1.0, repeats=2), {"model": "tiny"})
    assert make_all(wanted, lambda: model) == 2
    first, second = (read_parameters(PROMPTS[0].picture(tmp_path, n)) for n in (1, 2))
    assert (first["seed"], second["seed"], first["steps"]) == (42, 43, 1)
    (again,) = model.generate("A sign.", seed=43, steps=1, guidance_scale=1.0)
    assert Image.open(PROMPTS[0].picture(tmp_path, 2)).tobytes() == again.tobytes()


def test_repeats_below_one_are_refused():
    with pytest.raises(JoyImageError, match="repeats is 0"):
        Sampled(repeats=0)
