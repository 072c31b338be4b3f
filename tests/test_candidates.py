"""Choosing among candidates: who judges, what is chosen, and when it is enough."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from PIL import Image

from joyimage import JoyImage
from joyimage.candidates import Attempt, Candidate, Choice, Verdict, choose
from joyimage.errors import JoyImageError
from joyimage.images import read_parameters, save_png
from joyimage.settings import SEEDS

STEPS = {"steps": 2}


@pytest.fixture(scope="module")
def model() -> JoyImage:
    return JoyImage.load("tiny")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def choice(*scores: float | None) -> Choice:
    return Choice([Candidate(10 + i, Verdict(score)) for i, score in enumerate(scores)])


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ((0.2, 0.9, 0.5), 11),
        ((0.5, 0.9, 0.9), 11),  # of equal ones the lower seed
        ((0.8, 0.85), 10),  # not clearly better
        ((0.5, 0.5, 0.5), 10),
        ((None, 0.9), 10),  # nothing to compare with
        ((0.2, None, 0.6), 12),
        ((0.3,), 10),
    ],
)
def test_the_best_is_clearly_best(scores, chosen):
    assert choice(*scores).seed == chosen


def test_what_is_surely_right_ends_the_search():
    made = []

    def make(members, seeds):
        made.append((members, seeds))
        return [Image.new("RGB", (8, 8), (seed % 256, 0, 0)) for seed in seeds]

    def judge(attempt: Attempt) -> Verdict:
        red = attempt.result.getpixel((0, 0))[0]
        return Verdict(red / 255, sure=red in (3, 12))

    edits = [((), "a"), ((), "b"), ((), "c")]
    found = choose(make, edits, [3, 10, 20], 4, judge)
    assert made == [([0, 1, 2], [3, 10, 20]), ([1, 2], [11, 21]), ([1, 2], [12, 22]), ([2], [23])]
    assert [len(each.candidates) for each in found] == [1, 3, 4]


def test_a_judge_that_cannot_tell_is_not_asked_again():
    calls = []
    found = choose(
        lambda members, seeds: [Image.new("RGB", (8, 8))] * len(seeds), [((), "a")], [5], 8, lambda a: calls.append(a)
    )
    assert len(calls) == 1 and found[0].seed == 5 and found[0].candidates[0].verdict.score is None


def test_seeds_wrap_around():
    [found] = choose(lambda m, s: [Image.new("RGB", (8, 8))] * len(s), [((), "a")], [SEEDS - 1], 2, lambda a: 0.1)
    assert [each.seed for each in found.candidates] == [SEEDS - 1, 0]


@pytest.mark.parametrize("score", [1.2, -0.1, float("nan"), "good", True])
def test_a_score_is_from_0_to_1(score):
    with pytest.raises(JoyImageError, match="from 0 to 1"):
        Verdict(score)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"reason": None}, "reason must be text"),
        ({"reason": "gone \ud800"}, "reason holds"),
        ({"sure": "no"}, "sure is 'no'"),
        ({"sure": 1}, "sure is 1"),
        ({"clear": float("nan")}, "clear is nan"),
        ({"clear": -0.1}, "clear is -0.1"),
    ],
)
def test_a_verdict_of_wrong_types_is_refused(said, message):
    with pytest.raises(JoyImageError, match=message):
        Verdict(0.5, **said)


def test_a_judge_may_count_with_numpy(model, picture, tmp_path):
    judge = partial(Verdict, np.float32(0.25), "by its red", np.bool_(True))
    [chosen] = model.edit(picture, "Remove the red cube.", candidates=2, judge=lambda _: judge(), **STEPS)
    path = save_png(chosen, tmp_path / "chosen.png", chosen.info["candidates"])
    told = {"chosen": 0, "candidates": [{"seed": 0, "score": 0.25, "reason": "by its red"}]}
    assert read_parameters(path) == told


def test_the_chosen_picture_is_the_one_of_its_seed(model, picture):
    seen = []

    def judge(attempt: Attempt) -> float:
        seen.append(attempt)
        return (0.1, 0.3, 0.9)[len(seen) - 1]

    [chosen] = model.edit(picture, "Remove the red cube.", candidates=3, seed=7, judge=judge, **STEPS)
    [plain] = model.edit(picture, "Remove the red cube.", seed=9, **STEPS)
    assert np.array_equal(chosen, plain)
    told = chosen.info["candidates"]
    assert told["chosen"] == 9 and [each["score"] for each in told["candidates"]] == [0.1, 0.3, 0.9]
    assert seen[0].instruction == "Remove the red cube." and seen[0].pictures[0].size == (64, 64)
    assert np.array_equal(seen[2].result, plain)


def test_the_first_seed_stays_with_a_judge_that_is_not_sure(model, picture):
    [chosen] = model.edit(picture, "Remove the red cube.", candidates=3, judge=lambda a: 0.5, **STEPS)
    [plain] = model.edit(picture, "Remove the red cube.", **STEPS)
    assert np.array_equal(chosen, plain)


def test_drafts_are_made_by_few_steps_and_the_chosen_one_by_all(model, picture):
    shown = []

    def judge(attempt: Attempt) -> float:
        shown.append(attempt.result)
        return len(shown) / 10

    [chosen] = model.edit(picture, "Remove the red cube.", candidates=3, draft_steps=1, judge=judge, seed=4, steps=3)
    [draft] = model.edit(picture, "Remove the red cube.", seed=6, steps=1)
    [whole] = model.edit(picture, "Remove the red cube.", seed=6, steps=3)
    assert np.array_equal(shown[2], draft) and np.array_equal(chosen, whole) and not np.array_equal(draft, whole)


def test_every_edit_of_a_batch_has_its_own_choice(model, picture):
    other = Image.fromarray(255 - np.asarray(picture))

    def judge(attempt: Attempt) -> float:
        darker = np.asarray(attempt.pictures[0]).mean() < np.asarray(picture).mean() + 1
        counts[darker] += 1
        return 1.0 if counts[darker] == (2 if darker else 3) else 0.0

    counts = {True: 0, False: 0}
    pictures = [[picture], [Image.blend(other, Image.new("RGB", (64, 64), "white"), 0.5)]]
    made = model.edit(pictures, "Remove the red cube.", candidates=3, judge=judge, seed=[100, 200], **STEPS)
    assert [each.info["candidates"]["chosen"] for each in made] == [101, 202]
    alone = model.edit(pictures[1], "Remove the red cube.", seed=202, **STEPS)
    assert np.array_equal(made[1], alone[0])


def test_the_same_seed_gives_the_same_choice_within_a_memory_budget(model, picture):
    small = JoyImage.load("tiny", memory="60MB")
    options = {"candidates": 2, "seed": 3, **STEPS}
    [a] = model.edit(picture, "Rotate the red car to show the left side view.", **options)
    [b] = small.edit(picture, "Rotate the red car to show the left side view.", **options)
    assert a.info["candidates"]["chosen"] == b.info["candidates"]["chosen"]
    for one, other in zip(a.info["candidates"]["candidates"], b.info["candidates"]["candidates"], strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)
    assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1


def test_other_forms_of_output_are_chosen_alike(model, picture):
    judge = iter((0.1, 0.9)).__next__
    latent = model.edit(
        picture, "Remove the red cube.", candidates=2, judge=lambda _: judge(), output="latent", **STEPS
    )
    assert latent.equal(model.edit(picture, "Remove the red cube.", seed=1, output="latent", **STEPS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "candidates is 0"),
        ({"candidates": 2.5}, "candidates is 2.5"),
        ({"candidates": 65}, "from 1 to 64"),
        ({"candidates": 2, "count": 2}, "leave one of them at 1"),
        ({"draft_steps": 2}, "give 2 candidates"),
        ({"candidates": 2, "draft_steps": 0}, "at least 1"),
        ({"candidates": 2, "draft_steps": 2, "sigmas": [1.0, 0.5]}, "leave out sigmas"),
        ({"candidates": 2, "judge": "the model"}, "judge must take"),
        ({"judge": lambda a: 1.0}, "give 2 candidates"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(model, picture, options, message, monkeypatch):
    monkeypatch.setattr(type(model.encoder), "encode", lambda *_: pytest.fail("work was done"))
    with pytest.raises(JoyImageError, match=message):
        model.edit(picture, "Remove the red cube.", **options)


def test_a_callback_can_stop_and_errors_come_through(model, picture):
    class Stop(Exception):
        pass

    def callback(*_):
        raise Stop

    with pytest.raises(Stop):
        model.edit(picture, "Remove the red cube.", candidates=2, callback=callback, **STEPS)


def test_a_judge_that_the_environment_does_not_know_is_refused_before_any_work(model, picture, monkeypatch):
    monkeypatch.setenv("JOYIMAGE_JUDGE", "somebody")
    monkeypatch.setattr(type(model.encoder), "encode", lambda *_: pytest.fail("work was done"))
    with pytest.raises(JoyImageError, match="JOYIMAGE_JUDGE"):
        model.edit(picture, "Remove the red cube.", candidates=2)
