"""What the bundled model answers: how often it is right, and word for word where a page or the demo shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyimage import demo
from tools.tiny import evaluate, questions

EXAMPLE = Path(__file__).parents[2] / "docs" / "comfyui" / "api" / "ask.json"
COUNT = 12  # questions of a kind
# Of the first 12 questions of a kind, on combinations of colour and shape that training never showed, and on seen ones.
ANSWERS = [
    (True, {"count": 11, "relation": 11, "nearer": 10, "view": 11, "shape": 10, "colour": 7, "locate": 11}),
    (False, {"count": 11, "relation": 11, "nearer": 11, "view": 11, "shape": 10, "colour": 11, "locate": 11}),
]


@pytest.mark.parametrize(("test", "wanted"), ANSWERS, ids=["held-out", "seen"])
def test_questions_are_answered(model, test, wanted):
    exam = questions.make(60, np.random.default_rng(evaluate.SEED), test=test)
    asked = [(picture, q) for picture, some in zip(exam.pixels, exam.questions, strict=True) for q in some]
    for kind, number in wanted.items():
        chosen = [(picture, q) for picture, q in asked if q.kind == kind][:COUNT]
        said = [model.ask(Image.fromarray(picture), q.text, temperature=0) for picture, q in chosen]
        right = sum(evaluate.correct(q, text) for (_, q), text in zip(chosen, said, strict=True))
        assert right >= number, f"{kind}: {right} of {len(chosen)}"


def test_the_demos_question_is_answered(model):
    assert model.ask(demo.asset(demo.ASKED), demo.QUESTION, temperature=0) == "the purple car"


def test_the_question_of_the_example_for_programs_is_answered(model):
    question = json.loads(EXAMPLE.read_text(encoding="utf-8"))["ask"]["inputs"]["question"]
    assert "cone" in model.ask(demo.asset("move.png"), question, temperature=0)
