"""Schedules, guidance and solvers, against Diffusers' schedulers and flows whose solution is known."""

from __future__ import annotations

import math
import shutil
from collections import Counter

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.utils.torch_utils import randn_tensor
from hypothesis import given
from hypothesis import strategies as st

from joyimage import tiny
from joyimage.checkpoints import own_shift
from joyimage.errors import JoyImageError
from joyimage.sampling import (
    SCHEDULES,
    SOLVERS,
    custom_schedule,
    guide,
    guided,
    levels,
    noise,
    sample,
    schedule,
    shifted,
    start,
)
from joyimage.settings import Sampling

SHAPE = (16, 1, 4, 6)
MULTISTEP = {"dpmpp_2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}


def curved(x, sigma):
    """A velocity field that is linear in nothing."""
    return torch.tanh(1.3 * x + sigma) * (0.5 + sigma**2) + torch.sin(3 * x * sigma)


# Data distributed as N(MEAN, SPREAD²): the velocity and the path of every point have closed forms.
MEAN, SPREAD = 0.7, 0.5


def gaussian(x, sigma):
    x, variance = x.double(), ((1 - sigma) * SPREAD) ** 2 + sigma**2
    denoised = MEAN + (1 - sigma) * SPREAD**2 / variance * (x - (1 - sigma) * MEAN)
    return (x - denoised) / sigma


def gaussian_path(eps, sigma):
    return (1 - sigma) * MEAN + math.hypot((1 - sigma) * SPREAD, sigma) * eps


def gaussian_error(solver, sigmas):
    eps = noise(SHAPE, [3]).double()
    first, last = sigmas[0].item(), sigmas[-1].item()
    x = sample(gaussian, gaussian_path(eps, first), sigmas, solver=solver)
    return (x - gaussian_path(eps, last)).abs().max().item()


def difference(a, b):
    return (a - b).abs().max().item()


# Schedules


@given(st.integers(1, 300), st.floats(0.1, 20), st.sampled_from(sorted(SCHEDULES)))
def test_schedules_fall_from_one_to_zero(steps, shift, kind):
    sigmas = schedule(steps, shift, kind)
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == torch.float32 and sigmas.device.type == "cpu"
    assert sigmas[0] == 1 and sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize(
    "kind, expected",
    [("original", [1, 9 / 11, 0.6, 1 / 3, 0]), ("diffusers", [1, 0.750, 0.430, 0.00225, 0])],
)
def test_four_steps_by_value(kind, expected):
    torch.testing.assert_close(schedule(4, kind=kind), torch.tensor(expected), atol=5e-4, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 4, 30, 40, 1000])
@pytest.mark.parametrize("shift", [0.7, 1.0, 1.5, 3.0])
def test_both_schedules_equal_diffusers(steps, shift):
    oracle = FlowMatchEulerDiscreteScheduler(shift=shift)
    oracle.set_timesteps(steps)
    assert difference(schedule(steps, shift, "diffusers"), oracle.sigmas) <= 1e-6
    oracle.set_timesteps(sigmas=torch.linspace(1, 0, steps + 1)[:-1].tolist())
    assert difference(schedule(steps, shift), oracle.sigmas) <= 1e-6


@pytest.mark.parametrize("shift", [1.5, 4.0])
def test_a_folder_that_diffusers_saved_gives_its_schedule(tmp_path, shift):
    FlowMatchEulerDiscreteScheduler(shift=shift).save_pretrained(tmp_path / "scheduler")
    shutil.copy(tiny.FILES["mmdit"], tmp_path)
    oracle = FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    oracle.set_timesteps(8)
    assert difference(levels(Sampling(steps=8, schedule="diffusers"), own_shift(tmp_path)), oracle.sigmas) <= 1e-6


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": -3}, "steps is -3"),
        ({"steps": 4.0}, "steps is 4.0"),
        ({"steps": 4, "shift": 0}, "shift is 0"),
        ({"steps": 4, "shift": -1.5}, "shift is -1.5"),
        ({"steps": 4, "shift": math.nan}, "shift is nan"),
        ({"steps": 4, "shift": math.inf}, "shift is inf"),
        ({"steps": 40, "shift": 1e12}, "must fall"),
        ({"steps": 4, "kind": "karras"}, "'karras'.*original, diffusers"),
    ],
)
def test_schedule_refuses(arguments, words):
    with pytest.raises(JoyImageError, match=words):
        schedule(**arguments)


def test_custom_sigmas_are_final_values():
    expected = torch.tensor([0.9, 0.5, 0.25, 0])
    assert torch.equal(custom_schedule([0.9, 0.5, 0.25]), expected)
    assert torch.equal(custom_schedule([0.9, 0.5, 0.25, 0]), expected)


@pytest.mark.parametrize("timesteps", [[1000, 731.25, 0], torch.tensor([1000, 731.25])])
def test_timesteps_are_a_thousand_sigma(timesteps):
    assert torch.equal(custom_schedule(timesteps=timesteps), torch.tensor([1, 0.73125, 0]))


def test_shifted_custom_sigmas_equal_diffusers():
    values = [0.95, 0.6, 0.31, 0.02]
    oracle = FlowMatchEulerDiscreteScheduler(shift=1.5)
    oracle.set_timesteps(sigmas=values)
    assert difference(custom_schedule([shifted(v, 1.5) for v in values]), oracle.sigmas) <= 1e-6


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({}, "exactly one"),
        ({"sigmas": [1, 0.5], "timesteps": [1000]}, "exactly one"),
        ({"sigmas": []}, "sigmas: .* not a list"),
        ({"sigmas": [0]}, "sigmas: .* not a list"),
        ({"sigmas": 0.5}, "sigmas: .* not a list"),
        ({"sigmas": [[1, 0.5], [0.4, 0]]}, "sigmas: .* not a list"),
        ({"sigmas": [0.5, 0.7]}, "0.5 is followed by 0.7 at place 1"),
        ({"sigmas": [1, 0.5, 0.5]}, "0.5 is followed by 0.5 at place 2"),
        ({"sigmas": [1, 0.5, 0, 0]}, "0 is followed by 0"),
        ({"sigmas": [1.2, 0.5]}, r"sigmas: 1.2 is out of range.*\[0, 1\]"),
        ({"sigmas": [1, -0.1]}, "sigmas: -0.1 is out of range"),
        ({"sigmas": [1, math.nan, 0.2]}, "sigmas: nan"),
        ({"sigmas": [math.inf]}, "sigmas: inf"),
        ({"timesteps": [1001, 500]}, r"timesteps: 1001 is out of range.*\[0, 1000\]"),
        ({"timesteps": [500, 750]}, "timesteps must fall: 500 is followed by 750"),
    ],
)
def test_custom_schedule_refuses(arguments, words):
    with pytest.raises(JoyImageError, match=words):
        custom_schedule(**arguments)


# Guidance


def velocities():
    cond, uncond = noise(SHAPE, [1, 2]), noise(SHAPE, [3, 4])
    return cond, uncond


@pytest.mark.parametrize("size", [1, 1e-4, 1e-9, 0])  # the last two are where the norm is clamped
def test_guide_equals_the_pipelines_formula(size):
    cond, uncond = (size * v for v in velocities())
    c, u = cond[:, None], uncond[:, None]  # Diffusers: (B, items, C, 1, h, w), norms over dimension 2
    combined = u + 4.0 * (c - u)
    expected = combined * (c.norm(dim=2, keepdim=True) / combined.norm(dim=2, keepdim=True).clamp_min(1e-6))
    assert difference(guide(cond, uncond, 4.0), expected[:, 0]) <= 1e-6 * min(size, size**2 / 1e-6)


def test_guide_keeps_the_conditional_norm_per_position():
    cond, uncond = velocities()
    v = guide(cond, uncond, 7.0)
    torch.testing.assert_close(v.norm(dim=1), cond.norm(dim=1))


def test_rescale_blends():
    cond, uncond = velocities()
    plain, half, full = (guide(cond, uncond, 4.0, rescale) for rescale in (0, 0.5, 1))
    torch.testing.assert_close(plain, uncond + 4 * (cond - uncond))
    torch.testing.assert_close(half, (plain + full) / 2)
    assert difference(plain, full) > 0.1


def test_guidance_is_computed_in_float32():
    cond, uncond = (v.bfloat16() for v in velocities())
    v = guide(cond, uncond, 4.0)
    assert v.dtype == torch.float32
    torch.testing.assert_close(v, guide(cond.float(), uncond.float(), 4.0), atol=0, rtol=0)


def recording_model(calls):
    """The velocity of each condition is the condition itself; what was run is appended to `calls`."""

    def model(x, sigma, conditions):
        calls.append((sigma, len(conditions)))
        return list(conditions)

    return model


@pytest.mark.parametrize("scale", [1.0, 0.0, -2.0])
def test_scale_of_one_or_less_runs_one_pass(scale):
    calls, (cond, uncond) = [], velocities()
    v = guided(recording_model(calls), cond, uncond, scale=scale)(cond, 0.5)
    assert calls == [(0.5, 1)]
    assert torch.equal(v, cond)


@pytest.mark.parametrize("scale", [1.001, 3.0])
def test_guided_runs_both_conditions_and_guides(scale):
    calls, (cond, uncond) = [], velocities()
    v = guided(recording_model(calls), cond, uncond, scale=scale, rescale=0.7)(cond, 0.5)
    assert calls == [(0.5, 2)]
    assert torch.equal(v, guide(cond, uncond, scale, 0.7))


def test_outside_the_interval_runs_one_pass():
    calls, (cond, uncond) = [], velocities()
    velocity = guided(recording_model(calls), cond, uncond, interval=(0.25, 0.75))
    for sigma in (1.0, 0.76, 0.75, 0.5, 0.25, 0.24):
        velocity(cond, sigma)
    assert [passes for _, passes in calls] == [1, 1, 2, 2, 2, 1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"scale": math.nan}, "scale is nan"),
        ({"scale": math.inf}, "scale is inf"),
        ({"rescale": -0.1}, "rescale is -0.1"),
        ({"rescale": 1.1}, "rescale is 1.1"),
        ({"rescale": math.nan}, "rescale is nan"),
        ({"interval": (0.8, 0.2)}, "interval is"),
        ({"interval": (-0.1, 1.0)}, "interval is"),
        ({"interval": (0.0, math.nan)}, "interval is"),
    ],
)
def test_guided_refuses(arguments, words):
    with pytest.raises(JoyImageError, match=words):
        guided(recording_model([]), None, None, **arguments)


# Solvers


def run_scheduler(oracle, sigmas, velocity, x):
    """Diffusers' loop over exactly these sigmas."""
    oracle.set_timesteps(len(sigmas) - 1)
    oracle.sigmas = sigmas.clone()
    oracle.set_begin_index(0)
    for sigma, t in zip(sigmas[:-1].tolist(), oracle.timesteps, strict=True):
        x = oracle.step(velocity(x, sigma), t, x).prev_sample
    return x


@pytest.mark.parametrize("kind", sorted(SCHEDULES))
@pytest.mark.parametrize("steps", [1, 4, 40])
def test_euler_equals_diffusers(steps, kind):
    x, sigmas = noise(SHAPE, [0, 1]), schedule(steps, kind=kind)
    expected = run_scheduler(FlowMatchEulerDiscreteScheduler(), sigmas, curved, x)
    assert difference(sample(curved, x, sigmas), expected) <= 1e-6


@pytest.mark.parametrize("first", [1.0, 1 - 1e-6, 0.95])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("solver", sorted(MULTISTEP))
def test_multistep_solvers_equal_diffusers(solver, steps, first):
    x, sigmas = noise(SHAPE, [0, 1]), first * schedule(steps)
    oracle = MULTISTEP[solver](use_flow_sigmas=True, prediction_type="flow_prediction")
    assert difference(sample(curved, x, sigmas, solver=solver), run_scheduler(oracle, sigmas, curved, x)) <= 1e-5


@pytest.mark.parametrize("solver, order", [("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 3)])
@pytest.mark.parametrize("first", [1.0, 0.9])
def test_order_of_convergence(solver, order, first):
    """UniPC's corrector raises its order by one."""
    coarse, fine = (gaussian_error(solver, torch.linspace(first, 0.1, n + 1)) for n in (32, 128))
    assert abs(math.log(coarse / fine, 4) - order) < 0.2


@pytest.mark.parametrize("solver, order", [("euler", 0.95), ("heun", 1.9), ("dpmpp_2m", 1.7), ("unipc", 1.9)])
def test_order_of_a_whole_run(solver, order):
    """From 1 to 0. Steps near 0 stay long in lambda however many there are, which costs a log n of order two."""
    coarse, fine = (gaussian_error(solver, schedule(n, shift=1)) for n in (128, 512))
    assert math.log(coarse / fine, 4) > order


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_straight_paths_are_exact(solver, steps):
    """All data in one point: the paths are straight lines, and any number of steps reaches it."""
    point = noise(SHAPE, [5])
    x = sample(lambda x, sigma: (x - point) / sigma, noise(SHAPE, [6]), schedule(steps), solver=solver)
    assert difference(x, point) <= 2e-6


@pytest.mark.parametrize("solver, calls", [("euler", 6), ("heun", 11), ("dpmpp_2m", 6), ("unipc", 6)])
def test_velocities_per_run(solver, calls):
    seen = []

    def velocity(x, sigma):
        assert type(sigma) is float and 0 < sigma <= 1
        assert x.dtype == torch.float32
        seen.append(sigma)
        return curved(x, sigma).bfloat16()

    x = noise(SHAPE, [0]).bfloat16()
    result = sample(velocity, x, schedule(6), solver=solver)
    assert len(seen) == calls
    assert set(seen) == set(schedule(6)[:-1].tolist())
    assert result.dtype == torch.float32 and result.shape == x.shape
    assert x.dtype == torch.bfloat16 and torch.equal(x, noise(SHAPE, [0]).bfloat16())


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_sample_does_not_depend_on_its_batch(solver):
    batch = sample(curved, noise(SHAPE, [7, 8, 9]), schedule(5), solver=solver)
    alone = sample(curved, noise(SHAPE, [8]), schedule(5), solver=solver)
    assert difference(batch[1:2], alone) <= 1e-6


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_run_can_be_split(solver):
    x, sigmas = noise(SHAPE, [0]), schedule(6)
    half = sample(curved, x, sigmas[:4], solver=solver)
    assert torch.equal(sample(curved, half, sigmas[3:], solver=solver), sample(curved, x, sigmas, solver=solver))


def test_no_gradients_are_recorded():
    weight = torch.ones((), requires_grad=True)
    assert not sample(lambda x, sigma: weight * x, noise(SHAPE, [0]), schedule(2)).requires_grad


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_callback_sees_every_step(solver):
    seen, sigmas = [], schedule(4)
    x = noise(SHAPE, [0])
    result = sample(curved, x, sigmas, solver=solver, callback=lambda *args: seen.append(args))
    assert [(step, sigma) for step, sigma, _ in seen] == list(enumerate(sigmas[:-1].tolist()))
    torch.testing.assert_close(seen[0][2], x - curved(x, 1.0))
    assert difference(seen[-1][2], result) <= 1e-6  # the last step goes to 0, where nothing is left to remove


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_callback_stops_the_run_at_the_estimate(solver):
    seen, sigmas = [], []

    def velocity(x, sigma):
        sigmas.append(sigma)
        return curved(x, sigma)

    def callback(step, sigma, denoised):
        seen.append(denoised)
        return step < 1

    result = sample(velocity, noise(SHAPE, [0]), schedule(5), solver=solver, callback=callback)
    assert len(seen) == 2 and result is seen[-1]
    assert min(sigmas) >= schedule(5)[2 if solver == "heun" else 1]


def test_only_false_stops_the_run():
    steps = Counter()

    def callback(step, sigma, denoised):
        steps[step] += 1
        return [None, 0, "", True][step]

    sample(curved, noise(SHAPE, [0]), schedule(4), callback=callback)
    assert steps == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt()])
def test_callback_errors_pass_through(error):
    def callback(step, sigma, denoised):
        raise error

    with pytest.raises(type(error)) as caught:
        sample(curved, noise(SHAPE, [0]), schedule(4), callback=callback)
    assert caught.value is error


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_broken_velocity_names_the_step(solver, value):
    third = schedule(5)[2].item()

    def velocity(x, sigma):
        v = curved(x, sigma)
        v[0, 0, 0, 0, 0] = value if sigma == third else 0
        return v

    step = 2 if solver == "heun" else 3  # heun looks ahead
    seen = []
    with pytest.raises(JoyImageError, match=f"step {step} of 5"):
        sample(velocity, noise(SHAPE, [0]), schedule(5), solver=solver, callback=lambda *args: seen.append(args))
    assert len(seen) == step - 1


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_broken_latent_is_refused(value):
    x = noise(SHAPE, [0])
    x[0, 3, 0, 1, 1] = value
    with pytest.raises(JoyImageError, match="latent"):
        sample(curved, x, schedule(2))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"solver": "ddim"}, "'ddim'.*euler, heun, dpmpp_2m, unipc"),
        ({"sigmas": [0.2, 0.5, 0]}, "must fall"),
        ({"sigmas": [1.0]}, "not a list"),
        ({"sigmas": [14.6, 1, 0]}, "out of range"),
    ],
)
def test_sample_refuses(arguments, words):
    with pytest.raises(JoyImageError, match=words):
        sample(curved, noise(SHAPE, [0]), **{"sigmas": schedule(2), **arguments})


# Where a run starts


def test_noise_depends_on_the_seed_only():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    batch = noise(SHAPE, [11, 12, 2**64 - 1])
    assert torch.equal(torch.get_rng_state(), state)
    assert batch.shape == (3, *SHAPE) and batch.dtype == torch.float32 and batch.device.type == "cpu"
    assert torch.equal(noise(SHAPE, [12, 11]), batch[[1, 0]])
    assert not torch.equal(batch[0], batch[1])
    assert abs(batch.mean()) < 0.15 and abs(batch.std() - 1) < 0.15


def test_noise_equals_diffusers():
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    assert torch.equal(noise(SHAPE, [3, 4]), randn_tensor((2, *SHAPE), generator=generators))


@pytest.mark.parametrize("seeds", [[], [-1], [2**64], [0, 1.5]])
def test_noise_refuses(seeds):
    with pytest.raises(JoyImageError, match="seed"):
        noise(SHAPE, seeds)


@pytest.mark.parametrize(
    "steps, strength, run",
    [(10, 1.0, 10), (10, 0.5, 5), (10, 0.25, 3), (10, 0.24, 2), (10, 0.01, 1), (1, 0.3, 1), (40, 0.3, 12)],
)
def test_start_from_a_latent(steps, strength, run):
    eps, latent = noise(SHAPE, [0, 1]), noise(SHAPE, [2, 3])
    x, sigmas = start(eps, schedule(steps), latent.bfloat16(), strength)
    assert torch.equal(sigmas, schedule(steps)[steps - run :])
    expected = (1 - sigmas[0]) * latent.bfloat16().float() + sigmas[0] * eps
    assert x.dtype == torch.float32 and difference(x, expected) <= 1e-6


def test_a_whole_run_starts_from_the_noise():
    eps, latent = noise(SHAPE, [0]), noise(SHAPE, [2])
    for x, sigmas in (start(eps, schedule(4)), start(eps, schedule(4), latent)):
        assert torch.equal(x, eps) and torch.equal(sigmas, schedule(4))


def test_low_strength_stays_near_the_latent():
    eps, latent = noise(SHAPE, [0]), MEAN + SPREAD * noise(SHAPE, [2])
    distances = []
    for strength in (0.1, 0.4, 1.0):
        x, sigmas = start(eps, schedule(20), latent, strength)
        distances.append((sample(gaussian, x, sigmas) - latent).norm().item())
    assert distances == sorted(distances) and distances[0] < 0.3 * distances[-1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"latent": torch.zeros(1, *SHAPE), "strength": 0.0}, "strength is 0"),
        ({"latent": torch.zeros(1, *SHAPE), "strength": 1.01}, "strength is 1.01"),
        ({"latent": torch.zeros(1, *SHAPE), "strength": math.nan}, "strength is nan"),
        ({"strength": 0.5}, "no latent"),
        ({"latent": torch.zeros(2, *SHAPE)}, r"latent is \(2, .*noise is \(1, "),
        ({"sigmas": [0.5, 0.6, 0]}, "must fall"),
    ],
)
def test_start_refuses(arguments, words):
    with pytest.raises(JoyImageError, match=words):
        start(noise(SHAPE, [0]), **{"sigmas": schedule(4), **arguments})
