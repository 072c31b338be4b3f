"""Forecast velocities and reused guidance: what is computed when, and what comes of it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from PIL import Image

from joyimage import JoyImage, JoyImageError, sampling
from joyimage.sampling import SOLVERS, guide, guided, noise, sample, schedule, start
from joyimage.settings import NATIVE_STEPS, PRESETS, Sampling, Shortcuts
from joyimage.shortcuts import Trajectory, passes
from tools.tiny.shortcuts import counted

SHAPE = (16, 1, 4, 6)
SIZE = (64, 64)
EXACT = {"forecast": 1, "guidance_every": 1, "reference_every": 1, "block_cache": 0.0}


class Model:
    """Two velocity fields that are linear in nothing; notes the sigmas and numbers of conditions it is called with."""

    def __init__(self):
        self.calls: list[tuple[float, int]] = []

    def __call__(self, x, sigma, conditions):
        self.calls.append((sigma, len(conditions)))
        return [torch.tanh(1.3 * x + shift * sigma) * (0.5 + sigma**2) for shift in conditions]


def run(sigmas, solver="euler", x=None, **options):
    model = Model()
    x = noise(SHAPE, [0]) if x is None else x
    last = float(sigmas[-2])
    return sample(guided(model, 1.0, -0.5, last=last, **options), x, sigmas, solver=solver), model.calls


def plain(sigmas, solver="euler", scale=4.0):
    """What guidance and solver make of the model with no shortcut anywhere."""
    model = Model()

    def velocity(x, sigma):
        return guide(*model(x, sigma, [1.0, -0.5]), scale)

    return sample(velocity, noise(SHAPE, [0]), sigmas, solver=solver), [sigma for sigma, _ in model.calls]


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_at_1_all_is_computed_and_equal_to_the_bit(solver):
    expected, evaluations = plain(schedule(7), solver)
    found, calls = run(schedule(7), solver, forecast=1, every=1)
    assert torch.equal(found, expected)
    assert calls == [(sigma, 2) for sigma in evaluations]


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("every", [2, 3, 5])
def test_which_evaluations_are_computed(solver, every):
    """The first two, every n-th, and those at the last step's sigma; with heun's pairs at one sigma as with others."""
    _, evaluations = plain(schedule(12), solver)
    found, calls = run(schedule(12), solver, forecast=every)
    last = evaluations[-1]
    expected = [sigma for k, sigma in enumerate(evaluations) if k < 2 or k % every == 0 or sigma == last]
    assert calls == [(sigma, 2) for sigma in expected]
    assert found.isfinite().all()


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("every", [2, 3, 4])
def test_a_forecast_of_what_is_linear_in_sigma_is_exact(solver, every):
    slope, level = noise(SHAPE, [1, 2]).split(1)
    x = noise(SHAPE, [0])

    def model(x, sigma, conditions):
        return [level + sigma * slope for _ in conditions]

    found, expected = (sample(guided(model, 0, 0, 1.0, forecast=n), x, schedule(12), solver=solver) for n in (every, 1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_the_unconditional_pass_runs_at_every_nth(solver):
    _, evaluations = plain(schedule(10), solver)
    _, calls = run(schedule(10), solver, every=3)
    assert calls == [(sigma, 2 if k % 3 == 0 else 1) for k, sigma in enumerate(evaluations)]


@pytest.mark.parametrize("every", [2, 3])
def test_a_difference_that_is_constant_is_reused_exactly(every):
    difference = 0.3 * noise(SHAPE, [1])

    def model(x, sigma, conditions):
        return [torch.tanh(x + sigma) + shift * difference for shift in conditions]

    found, expected = (sample(guided(model, 1, 0, every=n), noise(SHAPE, [0]), schedule(9)) for n in (every, 1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_together_the_unconditional_pass_counts_what_is_computed():
    sigmas = schedule(10)
    _, calls = run(sigmas, forecast=3, every=2)
    computed = [0, 1, 3, 6, 9]
    assert calls == [(sigmas[k].item(), 2 - i % 2) for i, k in enumerate(computed)]


def test_they_are_nearer_to_all_steps_than_as_many_passes_of_fewer_steps():
    """40 steps by 15 velocities and 8 unconditional passes, against 12 steps of two passes each."""
    exact, _ = plain(schedule(40))
    found, calls = run(schedule(40), forecast=3, every=2)
    fewer, evaluations = plain(schedule(12))
    assert sum(passes for _, passes in calls) <= 2 * len(evaluations)
    assert (found - exact).abs().max() < (fewer - exact).abs().max()


def test_where_sigma_rises_a_run_begins():
    """The forecast of a velocity that is asked from the start again has forgotten what came before."""
    velocity = guided(Model(), 1.0, -0.5, forecast=3)
    first, second = (sample(velocity, noise(SHAPE, [0]), schedule(8)) for _ in range(2))
    assert torch.equal(first, second)


def test_without_guidance_only_the_forecast_acts():
    _, calls = run(schedule(7), scale=1.0, forecast=3, every=2)
    assert [passes for _, passes in calls] == [1, 1, 1, 1]  # 0, 1, 3 and 6


def test_where_the_interval_begins_and_ends_the_count_does_too():
    """Of ten steps three lie before the interval and three after it."""
    sigmas = torch.linspace(1, 0, 11)
    _, calls = run(sigmas, interval=(0.35, 0.75), forecast=3, every=2)
    before, within, after = [1.0, 0.9], [0.7, 0.6, 0.4], [0.3, 0.2, 0.1]
    expected = [(s, 1) for s in before] + [(s, 2 - i % 2) for i, s in enumerate(within)] + [(s, 1) for s in after]
    assert [passes for _, passes in calls] == [passes for _, passes in expected]
    assert [sigma for sigma, _ in calls] == pytest.approx([sigma for sigma, _ in expected])


def test_nothing_is_forecast_farther_than_it_can_be():
    """Own sigmas may fall slowly and then fast, where a line through two near points says nothing."""
    sigmas = [1.0, 0.999, 0.5, 0.498, 0.2, 0.0]
    found, calls = run(sigmas, forecast=4)
    assert [sigma for sigma, _ in calls] == pytest.approx([1.0, 0.999, 0.5, 0.2])
    expected, _ = plain(sigmas)
    assert (found - expected).abs().max() < 0.05


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_are_computed_whole(solver, steps):
    """Of up to two evaluations none is forecast."""
    found, _ = run(schedule(steps), solver, forecast=10)
    expected, evaluations = plain(schedule(steps), solver)
    if len(evaluations) <= 2:
        assert torch.equal(found, expected)
    assert found.isfinite().all()


def test_a_run_that_starts_within_counts_from_its_own_start():
    x, sigmas = start(noise(SHAPE, [0]), schedule(20), noise(SHAPE, [1]), 0.5)
    _, calls = run(sigmas, x=x, forecast=3)
    assert [sigma for sigma, _ in calls] == [sigmas[k].item() for k in (0, 1, 3, 6, 9)]


@pytest.mark.parametrize("options", [{"forecast": 0}, {"forecast": 2.0}, {"every": 0}, {"every": True}], ids=str)
def test_what_is_no_count_is_refused(options):
    with pytest.raises(JoyImageError, match=r"(forecast|guidance_every) is (0|2\.0|True)"):
        guided(Model(), 1, 0, **options)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("steps", [6, 40])
def test_a_trajectory_is_left_by_fresh_noise_alone(solver, steps):
    model, trajectory, left = Model(), Trajectory(), []

    def velocity(x, sigma, noisy=None):
        x = x if noisy is None else 0.9 * x + 0.44 * noisy
        left.append(trajectory.left(sigma, x))
        (v,) = model(x, sigma, [1.0])
        trajectory.went(sigma, x, v)
        return v

    sample(velocity, noise(SHAPE, [0]), schedule(steps), solver=solver)
    assert not any(left)
    fresh = iter(noise(SHAPE, range(100, 200)).split(1))
    trajectory, left = Trajectory(), []
    sample(lambda x, sigma: velocity(x, sigma, next(fresh)), noise(SHAPE, [0]), schedule(steps), solver="euler")
    assert left == [False] + [True] * (steps - 1)


# Presets


def test_a_preset_fills_what_is_off_and_no_more():
    assert Sampling(preset="fast").shortcuts == PRESETS["fast"]
    assert Sampling(preset="fast", forecast=2).shortcuts == PRESETS["fast"] | {"forecast": 2}
    assert Sampling(preset="fast", reference_every=2).shortcuts == PRESETS["fast"] | {"reference_every": 2}
    assert Sampling().shortcuts == Sampling(preset="exact").shortcuts == PRESETS["exact"] == {}


def test_the_shortcuts_of_a_preset_exist():
    for content in PRESETS.values():
        assert set(content) <= set(EXACT)
        assert all(value != EXACT[name] for name, value in content.items())


# In whole runs


@pytest.fixture(scope="module")
def model() -> JoyImage:
    return JoyImage.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def conditionings(model):
    texts = ["A red cube on a smooth gray ground.", "A blue ball and a green cone on a smooth tan ground."]
    return model.condition([[], []], texts, negative_prompt="blurry", size=SIZE)


def noted(model, monkeypatch) -> list[int]:
    """Numbers of prompts in each forward from now on."""
    forward, prompts = model.mmdit.forward, []

    def counting(latent, t, context, *rest):
        prompts.append(len(context))
        return forward(latent, t, context, *rest)

    monkeypatch.setattr(model.mmdit, "forward", counting)
    return prompts


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_off_equals_exact_to_the_bit(model, conditionings, solver):
    options = {"steps": 3, "solver": solver, "output": "latent", "seed": [5, 6]}
    plain = model.render(conditionings, **options)
    assert torch.equal(model.render(conditionings, **EXACT, preset="exact", **options), plain)


def test_the_fast_preset_takes_a_third_of_the_forwards(model, conditionings, monkeypatch):
    forwards = noted(model, monkeypatch)
    model.render(conditionings[:1], preset="fast", output="latent")
    assert sum(forwards) <= 2 * NATIVE_STEPS / 3


@pytest.fixture(scope="module")
def edits(model):
    pictures = [Image.new("RGB", SIZE, "tan"), Image.radial_gradient("L").resize(SIZE).convert("RGB")]
    return model.condition([[picture] for picture in pictures], "Remove the cube.", size=SIZE)


ALONE = [{"forecast": 2}, {"guidance_every": 2}, {"reference_every": 2}, {"block_cache": 0.1}]
TOGETHER = [{"preset": "fast"}, {name: value for options in ALONE for name, value in options.items()}]


@pytest.mark.parametrize("options", [*ALONE, *TOGETHER], ids=str)
def test_a_run_sees_nothing_of_another(model, edits, options):
    """Alone, again, and one after the other in a call: the same bits. In a batch: within rounding."""
    options = {"steps": 8, "output": "latent", **options}
    alone = torch.cat([model.render([one], seed=i, **options) for i, one in enumerate(edits)])
    together = model.render(edits, seed=[0, 1], **options)
    again = model.render(edits, seed=[0, 1], **options)
    assert torch.equal(together, alone) and torch.equal(again, alone)
    if "block_cache" not in options:  # which the samples of a batch decide on together
        batch = model.render(edits, seed=[0, 1], batch_size=2, **options)
        torch.testing.assert_close(batch, alone, atol=1e-4, rtol=0)


STARTS = [{"steps": 5}, {"steps": 10, "strength": 0.5}, {"sigmas": [1, 0.9, 0.7, 0.4, 0.2]}]


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("options", [*ALONE[:3], {"block_cache": 0.5}, TOGETHER[1]], ids=str)
def test_each_saves_work_with_every_solver(model, edits, solver, options):
    """From noise, from the picture itself, and at own sigmas."""
    for given in STARTS:
        given = {"solver": solver, "output": "latent", **given}
        with counted(model) as exactly:
            exact = model.render(edits[:1], **given)
        with counted(model) as sparingly:
            found = model.render(edits[:1], **given, **options)
        assert sparingly["tokens"] < exactly["tokens"]
        assert found.isfinite().all() and not torch.equal(found, exact)


def test_a_run_that_was_stopped_leaves_nothing(model, conditionings):
    options = {"steps": 8, "output": "latent", "preset": "fast"}
    whole = model.render(conditionings[:1], **options)
    model.render(conditionings[:1], callback=lambda step, *_: step < 4, **options)
    assert torch.equal(model.render(conditionings[:1], **options), whole)


def test_edit_and_generate_take_them(model, monkeypatch):
    forwards = noted(model, monkeypatch)
    options = {"forecast": 2, "guidance_every": 2, "steps": 6, "output": "latent"}
    edited = model.edit(Image.new("RGB", SIZE, "tan"), "Remove the cube.", **options)
    made = model.generate("A red cube.", size=SIZE, **options)
    assert sum(forwards) == 2 * (5 + 3)  # evaluations 0, 1, 2, 4, 5 are computed, 0, 2 and 5 of them with both passes
    assert edited.isfinite().all() and made.isfinite().all()


def test_the_count_of_forwards_is_that_of_the_network(model, edits, monkeypatch):
    forwards = noted(model, monkeypatch)
    with counted(model) as found:
        model.render(edits[:1], steps=4, guidance_every=2, output="latent")
    assert found["forwards"] == pytest.approx(sum(forwards)) == 6


# Reading late


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("bad", [0, 3, 4])
def test_a_check_that_is_read_late_names_the_same_step(monkeypatch, solver, bad):
    """As on a GPU: while the next step is queued, and after the last one too."""
    sigmas = schedule(5)
    broken = sigmas[bad].item()

    def velocity(x, sigma):
        return x * (math.nan if sigma == broken else 0.1)

    def message() -> str:
        with pytest.raises(JoyImageError, match="NaN") as error:
            sample(velocity, noise(SHAPE, [0]), sigmas, solver=solver)
        return str(error.value)

    at_once = message()
    monkeypatch.setattr(sampling, "steps_behind", lambda device: 1)
    assert message() == at_once


def test_a_run_that_is_stopped_is_checked_before_it_is_used(monkeypatch):
    monkeypatch.setattr(sampling, "steps_behind", lambda device: 1)
    with pytest.raises(JoyImageError, match="step 1 of 4"):
        sample(lambda x, sigma: x * math.nan, noise(SHAPE, [0]), schedule(4), callback=lambda *_: False)


def test_reading_late_changes_no_result(monkeypatch):
    expected, _ = plain(schedule(4))
    monkeypatch.setattr(sampling, "steps_behind", lambda device: 1)
    steps = []
    model = Model()
    found = sample(
        guided(model, 1.0, -0.5),
        noise(SHAPE, [0]),
        schedule(4),
        callback=lambda step, sigma, denoised: steps.append((step, sigma)),
    )
    assert torch.equal(found, expected)
    assert steps == [(i, sigma) for i, (sigma, _) in enumerate(pairwise(schedule(4).tolist()))]


@pytest.mark.parametrize("steps", [2, 3, 11, 40])
@pytest.mark.parametrize("values", [{}, {"preset": "fast"}, {"forecast": 3}, {"guidance_every": 2}], ids=str)
def test_passes_are_counted_beforehand(steps, values):
    settings = Shortcuts(**values)
    _, calls = run(schedule(steps), forecast=settings.forecast, every=settings.guidance_every)
    assert passes(settings, schedule(steps).tolist()) == sum(conditions for _, conditions in calls)
