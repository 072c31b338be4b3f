"""Reasoning with views: the plan that is read, the views that are made, the question that is asked in the end."""

from __future__ import annotations

import pytest
from PIL import Image

from joyimage import JoyImage, prompts, spatial
from joyimage.errors import JoyImageError
from joyimage.reasoning import parse_plan, reason

PICTURE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("text", "motions"),
    [
        ('[{"yaw": 45, "pitch": 0, "zoom": "unchanged"}]', [spatial.Camera(45)]),
        ('{"yaw": -90}', [spatial.Camera(-90)]),
        (
            '```json\n[{"yaw": 30, "pitch": 15, "zoom": "in"}, {"pitch": 40}]\n```',
            [spatial.Camera(30, 15, "in"), spatial.Camera(0, 40)],
        ),
        ("none", []),
        ('"none"', []),
        ("[]", []),
        ('I need no view: "None".', []),
        ('[{"yaw": 0, "pitch": 0, "zoom": "unchanged"}]', []),
        ('<think>{"yaw": 10}</think>[{"yaw": 20}]', [spatial.Camera(20)]),
        ('[{"yaw": 370}]', [spatial.Camera(10)]),
    ],
)  # fmt: skip
def test_plans_are_read(text, motions):
    assert parse_plan(text) == motions


@pytest.mark.parametrize(
    "text", ["", "I would look from the left.", '[{"yaw": "left"}]', '[{"zoom": "near"}]', '{"yaw": 1e999}']
)
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(JoyImageError):
        parse_plan(text)


class Model:
    """Says what it is given, and keeps what it was asked."""

    def __init__(self, *replies: str):
        self.replies, self.asked, self.rendered = list(replies), [], []

    def answer(self, pictures, question, system):
        self.asked.append((len(pictures), question, system))
        return self.replies.pop(0)

    def render(self, cameras):
        for camera in cameras:
            self.rendered.append(camera)
            yield Image.new("RGB", (8, 8), (int(camera.yaw) % 256, 0, 0))


def test_the_answer_rests_on_the_picture_and_its_views():
    model = Model('[{"yaw": 90}]', " Two. \n")
    seen = []
    found = reason(model.answer, model.render, PICTURE, "How many?", on_view=seen.append)
    assert found.text == str(found) == "Two." and found.note == ""
    assert found.instructions == [spatial.camera(90)] and found.pictures == [view.picture for view in seen]
    assert model.asked == [
        (1, "At most 1 view. Question: How many?", prompts.PLANNING_SYSTEM),
        (2, "Picture 2 shows the scene after this: yaw 90, pitch 0, zoom unchanged. How many?", None),
    ]


def test_another_turn_sees_the_views_before_it_and_makes_none_twice():
    model = Model('[{"yaw": 90}, {"yaw": 30}, {"yaw": 60}]', '[{"yaw": 90}, {"yaw": -90}]', "none", "Three.")
    found = reason(model.answer, model.render, PICTURE, "How many?", views=2, turns=3)
    assert [camera.yaw for camera in model.rendered] == [90, 30, -90]
    assert [count for count, *_ in model.asked] == [1, 3, 4, 4] and found.text == "Three."
    assert model.asked[1][1].startswith("At most 2 views. Question: Picture 2 shows")


def test_no_view_is_a_plain_answer():
    model = Model("none", "One.")
    found = reason(model.answer, model.render, PICTURE, "How many?")
    assert (found.text, found.views, found.note) == ("One.", (), "") and model.asked[1] == (1, "How many?", None)


def test_a_plan_that_cannot_be_read_is_noted():
    model = Model("Let me think.", "One.")
    found = reason(model.answer, model.render, PICTURE, "How many?")
    assert found.text == "One." and "Let me think." in found.note and "from the picture alone" in found.note


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"question": " "}, "the question is empty"),
        ({"question": None}, "the question must be text"),
        ({"question": "How many \ud800?"}, "the question holds"),
        ({"views": 0}, "views is 0"),
        ({"turns": 1.5}, "turns is 1.5"),
        ({"views": 5, "turns": 2}, "at most 8"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_asked(options, message):
    model = Model()
    with pytest.raises(JoyImageError, match=message):
        reason(model.answer, model.render, PICTURE, **{"question": "How many?", **options})
    assert not model.asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bogus": 1}, "no option 'bogus'"),
        ({"steps": 0}, "steps is 0"),
        ({"size": (63, 64)}, "the nearest is 64 x 64"),
        ({"negative_prompt": 5}, "negative prompt must be text"),
        ({"callback": 5}, "callback must take step, sigma and denoised; it is 5"),
        ({"on_view": 5}, "on_view must take a View; it is 5"),
        ({"on_text": "print"}, "on_text must take the words of an answer"),
        ({"candidates": 0}, "candidates is 0"),
        ({"draft_steps": 2}, "draft_steps"),
        ({"output": "latent"}, "leave output out"),
        ({"count": 2}, "leave count out"),
        ({"mask": "mask.png"}, "leave mask out"),
        ({"outpaint": (16, 0, 0, 0)}, "leave outpaint out"),
    ],
)
def test_options_of_views_are_refused_though_none_may_be_asked_for(monkeypatch, options, message):
    model = JoyImage.load("tiny")
    monkeypatch.setattr(model.encoder, "answer", lambda *_args, **_options: pytest.fail("the model was asked"))
    with pytest.raises(JoyImageError, match=message):
        model.reason(PICTURE, "How many?", **options)


def test_views_of_one_turn_are_edits_that_share_their_encodings(monkeypatch):
    model, cameras = JoyImage.load("tiny"), [spatial.Camera(45), spatial.Camera(0, 20, "in")]
    picture, options = Image.new("RGB", (64, 64), (90, 140, 90)), {"steps": 2, "seed": 5, "negative_prompt": "gray"}
    edits = model.edit(picture, [camera.text for camera in cameras], **options)
    plan = '[{"yaw": 45}, {"yaw": 0, "pitch": 20, "zoom": "in"}]'
    replies, visits, encode = iter([plan, "Two."]), [], model.encoder.encode
    monkeypatch.setattr(model.encoder, "answer", lambda *_args, **_options: next(replies))
    monkeypatch.setattr(model.encoder, "encode", lambda *args, **named: visits.append(args) or encode(*args, **named))
    found = model.reason(picture, "How many?", views=2, **options)
    assert [view.camera for view in found.views] == cameras and len(visits) == 1
    assert [view.tobytes() for view in found.pictures] == [edit.tobytes() for edit in edits]
