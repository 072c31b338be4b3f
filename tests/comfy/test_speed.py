"""What saves forwards in a running ComfyUI: in our sampler and before any, against the library, beside other nodes."""

from __future__ import annotations

import re

import pytest
import torch
from edits import NEGATIVE, PROMPT, SIZE, Edit, normalised, sampled

from joyimage.sampling import schedule
from tools.client import Failed, Rejected

STEPS = 10  # a divisor of 1000: the host's schedule is then ours
VALUES = [
    {"forecast": 3},
    {"guidance_every": 2},
    {"reference_every": 3},
    {"block_cache": 0.1},
    {"forecast": 2, "guidance_every": 2, "solver": "heun"},
    {"forecast": 3, "reference_every": 2, "block_cache": 0.05, "solver": "unipc"},
    {"preset": "fast"},
]


def expected(library, photo, **options) -> torch.Tensor:
    options = {"steps": STEPS, "negative_prompt": NEGATIVE, "seed": 7, "output": "latent", **options}
    return library.edit([photo], PROMPT, size=(SIZE, SIZE), **options)


def speed(edit: Edit, model: list | None = None, **values) -> list:
    return edit.add("JoyImageSpeed", **({"model": model or edit.model, "preset": "exact"} | values))


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_the_sampler_equals_the_library(client, library, photo, values):
    latent = normalised(sampled(client, Edit(image=True), steps=STEPS, **values))
    torch.testing.assert_close(latent, expected(library, photo, **values), atol=2e-4, rtol=0)
    assert (latent - expected(library, photo, solver=values.get("solver", "euler"))).abs().max() > 1e-3


@pytest.mark.parametrize("low, high", [(0.3, 1.0), (0.0, 0.8), (0.4, 0.6)])
def test_guidance_acts_in_its_interval(client, library, photo, low, high):
    edit = Edit(image=True)
    guider = edit.add(
        "JoyImageGuider",
        model=edit.model,
        positive=edit.positive,
        negative=edit.negative,
        guidance=4.0,
        guidance_low=low,
        guidance_high=high,
    )
    saved = edit.sample(steps=STEPS, guidance_low=low, guidance_high=high), edit.save(edit.custom(guider, STEPS))
    run = client.run(edit)
    own = expected(library, photo, guidance_interval=(low, high))
    for latent in map(run.latent, saved):
        torch.testing.assert_close(normalised(latent), own, atol=1e-4, rtol=0)


@pytest.mark.parametrize("values", [values for values in VALUES if "solver" not in values], ids=str)
def test_before_any_sampler_they_are_the_same(client, photo, values):
    """Ours, its guider in the host's, and the host's KSampler with our guidance."""
    edit = Edit(image=True)
    fast = speed(edit, **values)
    norm = edit.add("CFGNorm", model=fast, strength=1.0, pre_cfg=True)
    guided = {"positive": edit.positive, "negative": edit.negative, "guidance": 4.0}
    saved = [
        edit.sample(steps=STEPS, **values),
        edit.sample(steps=STEPS, model=fast),
        edit.save(edit.custom(edit.add("JoyImageGuider", model=fast, **guided), STEPS)),
        edit.ksampler(norm, steps=STEPS),
        edit.sample(steps=STEPS),
    ]
    run = client.run(edit)
    own, *others, exact = map(run.latent, saved)
    for other in others:
        torch.testing.assert_close(other, own, atol=2e-4, rtol=0)
    assert (own - exact).abs().max() > 1e-3


def test_nothing_goes_from_one_branch_or_run_into_another(client):
    """Exact before, beside and after: the same bits. So are two fast runs."""
    edit = Edit()
    fast = speed(edit, preset="fast", block_cache=0.2)
    saved = [
        edit.sample(steps=STEPS),
        edit.sample(steps=STEPS, model=fast),
        edit.sample(steps=STEPS, solver="euler", rescale=1.0),
        edit.sample(steps=STEPS, model=fast, rescale=1.0),
        edit.sample(steps=STEPS, model=speed(edit, fast)),
    ]
    run = client.run(edit)
    exact, first, again, second, off = map(run.latent, saved)
    assert torch.equal(exact, again) and torch.equal(exact, off)
    assert torch.equal(first, second) and not torch.equal(first, exact)


def test_the_last_speed_node_holds_and_the_sampler_before_it(client):
    edit = Edit()
    first = speed(edit, forecast=4, guidance_every=3)
    second = speed(edit, first, forecast=2)
    saved = [
        edit.sample(steps=STEPS, forecast=2),
        edit.sample(steps=STEPS, model=second),
        edit.sample(steps=STEPS, forecast=2, guidance_every=3),
        edit.sample(steps=STEPS, model=first, forecast=2),
    ]
    run = client.run(edit)
    alone, replaced, both, before = map(run.latent, saved)
    assert torch.equal(replaced, alone)
    assert torch.equal(before, both)


def test_after_an_interruption_a_run_begins_anew(client):
    edit = Edit(size=256)
    edit.sample(seed=12, steps=1000, preset="fast")

    def stop(node: str, value: int) -> None:
        if value == 3:
            client.post("/interrupt", {})

    fast = {"steps": STEPS, "preset": "fast"}
    before = sampled(client, Edit(), seed=21, **fast)
    assert client.run(edit, on_progress=stop).interrupted
    again = Edit()
    again.model = speed(again)  # which changes nothing: the same graph's result would come from the host's cache
    assert torch.equal(sampled(client, again, seed=21, **fast), before)


def test_batches_have_what_each_has_alone(client):
    values = {"steps": STEPS, "preset": "fast"}
    batch = sampled(client, Edit(batch_size=2), **values)
    for k, latent in enumerate(batch.split(1)):
        torch.testing.assert_close(latent, sampled(client, Edit(), seed=7 + k, **values), atol=2e-4, rtol=0)


def test_a_mask_keeps_the_rest(client, photo):
    edit = Edit(image=True)
    start = edit.add("VAEEncode", pixels=edit.add("LoadImage", image="photo.png"), vae=edit.vae)
    kept, changed = (edit.add("SolidMask", value=value, width=SIZE, height=SIZE) for value in (0.0, 1.0))
    mask = edit.add("MaskComposite", destination=kept, source=changed, x=SIZE // 2, y=0, operation="add")
    masked = edit.add("SetLatentNoiseMask", samples=start, mask=mask)
    before = edit.save(start)
    after = [edit.sample(latent=masked, steps=20, forecast=forecast) for forecast in (1, 2)]
    run = client.run(edit)
    exact, fast = ((run.latent(each) - run.latent(before)) for each in after)
    half = exact.shape[-1] // 2
    assert fast[..., :half].abs().max() < 1e-5
    assert fast[..., half:].abs().mean() > 0.1
    assert (fast - exact).abs().mean() < 0.1 * exact[..., half:].abs().mean()


def test_easycache_goes_on_working(client):
    edit = Edit()
    settings = {"reuse_threshold": 0.5, "start_percent": 0.1, "end_percent": 0.95, "verbose": False}
    fast = speed(edit, edit.add("EasyCache", model=edit.model, **settings), guidance_every=2)
    node = edit.sample(model=fast, steps=12)
    assert client.run(edit).latent(node).isfinite().all()
    skipped = re.findall(r"EasyCache - skipped (\d+)/12 steps", client.log.read_text(errors="replace"))
    assert int(skipped[-1]) > 0


def test_hooks_on_prompts_go_on_working(client, lora):
    """Hooks patch the weights while a prompt runs; on both prompts that is the whole model."""
    edit = Edit()
    fast = speed(edit, preset="fast")
    patched = edit.add("LoraLoaderModelOnly", model=fast, lora_name=lora, strength_model=1.0)
    hooks = edit.add("CreateHookLoraModelOnly", lora_name=lora, strength_model=1.0)
    hooked = {
        name: edit.add("ConditioningSetProperties", cond_NEW=cond, strength=1.0, set_cond_area="default", hooks=hooks)
        for name, cond in (("positive", edit.positive), ("negative", edit.negative))
    }
    saved = [
        edit.sample(steps=STEPS, model=patched),
        edit.sample(steps=STEPS, model=fast, **hooked),
        edit.sample(steps=STEPS, **hooked),
    ]
    run = client.run(edit)
    own, other, exact = map(run.latent, saved)
    torch.testing.assert_close(own, other, atol=2e-4, rtol=0)
    assert (own - exact).abs().max() > 1e-3


def test_another_kind_of_model_is_refused(client):
    edit = Edit()
    other = edit.add("ModelSamplingDiscrete", model=edit.model, sampling="eps", zsnr=False)
    edit.sample(model=speed(edit, other, forecast=2))
    with pytest.raises(Failed, match="is no rectified-flow model, and forecast"):
        client.run(edit)


def test_a_model_that_becomes_another_kind_is_refused_when_it_runs(client):
    edit = Edit()
    other = edit.add("ModelSamplingDiscrete", model=speed(edit, guidance_every=2), sampling="eps", zsnr=False)
    edit.ksampler(other)
    with pytest.raises(Failed, match="is no rectified-flow model, and guidance_every"):
        client.run(edit)


@pytest.mark.parametrize(
    "inputs, words",
    [
        ({"forecast": 0}, "forecast"),
        ({"guidance_low": 0.8, "guidance_high": 0.2}, "guidance interval"),
        ({"guidance_low": 2.0}, "guidance interval"),
        ({"guidance_high": -1.0}, "guidance interval"),
    ],
)
def test_what_cannot_be_used_is_refused_before_running(client, inputs, words):
    edit = Edit()
    edit.sample(**inputs)
    with pytest.raises(Rejected, match=words):
        client.run(edit)


def test_which_passes_run(probe):
    """The host's KSampler, with sigmas at which ranges of prompts begin and end; numbers of prompts in each forward."""
    figures = probe("shortcuts")
    assert figures["exact"] == [2] * 12
    assert figures["forecast"] == [2] * 6  # 0, 1, 3, 6, 9 and the last
    assert figures["guidance"] == [2, 1] * 6
    assert figures["both"] == [2, 1, 2, 1, 2, 1]
    assert figures["ranges"] == [2] * 6  # a prompt ends in the middle, and the count begins anew
    steps = [min(range(12), key=lambda k: abs(schedule(12)[k] - sigma)) for sigma in figures["sigmas"]]
    assert steps == [0, 1, 4, 7, 8, 11]


def test_room_is_made_for_what_is_kept(probe):
    """Two prompts' keys and values, and those of one while it gets new ones."""
    figures = probe("shortcuts")
    assert figures["keys and values"] < figures["kept"]


def test_other_networks_take_what_needs_none_of_ours(probe):
    figures = probe("shortcuts")
    assert figures["other network"] < 1e-4
    assert "reference_every and block_cache is done inside the network of JoyAI-Image" in figures["refused"]


def test_nothing_is_forecast_for_samplers_that_add_noise_or_read_both_prompts(probe):
    """Fresh noise is in no line through the velocities before it; what cfg_pp reads is there only when computed."""
    figures = probe("odd_runs")
    assert figures["computed"] == dict.fromkeys(figures["computed"], 0.0)
    assert all(moved > 1e-3 for moved in figures["forecast"].values())


def test_both_prompts_of_an_area_keep_references_of_their_own(probe):
    """The host makes the negative one of the area, with the uuid of the positive one."""
    assert probe("odd_runs")["with references"] == [[4, 7], [4, 11], [8, 7]]
