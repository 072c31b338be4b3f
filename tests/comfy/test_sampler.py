"""The sampler, guider and schedule nodes in a running ComfyUI, against the library and ComfyUI's own sampler."""

from __future__ import annotations

import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from edits import NEGATIVE, PROMPT, SIZE, STEPS, Edit, normalised, sampled
from PIL import Image
from safetensors.torch import save_file

from joyimage import tiny
from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD
from tools.client import Failed, Rejected


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"guidance": 1.0},
        {"rescale": 0.5, "shift": 3.0, "schedule": "diffusers", "solver": "heun"},
        {"solver": "unipc", "steps": 6},
        {"solver": "dpmpp_2m"},
    ],
)
def test_sampler_equals_the_library(client, library, photo, image, options):
    latent = normalised(sampled(client, Edit(image), **options))
    settings = {"steps": STEPS, "guidance_scale": 4.0, "negative_prompt": NEGATIVE, "seed": 7} | options
    if "guidance" in options:
        settings["guidance_scale"] = settings.pop("guidance")
    images = [photo] if image else None
    make = (lambda *a, **k: library.edit(images, *a, **k)) if image else library.generate
    expected = make(PROMPT, size=(SIZE, SIZE), output="latent", **settings)
    torch.testing.assert_close(latent, expected, atol=1e-4, rtol=0)


def test_prompts_of_one_length_share_a_batch(client, library):
    negative = "blurry and grainy"
    assert len(negative) == len(PROMPT)  # one token per byte
    latent = normalised(sampled(client, Edit(negative=negative)))
    expected = library.generate(
        PROMPT, size=(SIZE, SIZE), steps=STEPS, seed=7, negative_prompt=negative, output="latent"
    )
    torch.testing.assert_close(latent, expected, atol=1e-4, rtol=0)


def test_references_may_come_from_comfyuis_node(client, library, photo):
    """Core's Set Reference Latent uses the same key, so prompts of others' encoders go with our sampler."""
    edit = Edit()
    start = edit.add("VAEEncode", pixels=edit.add("LoadImage", image="photo.png"), vae=edit.vae)
    given = {
        name: edit.add("ReferenceLatent", conditioning=cond, latent=start)
        for name, cond in (("positive", edit.positive), ("negative", edit.negative))
    }
    latent = normalised(sampled(client, edit, **given))
    (text,) = library.condition([[]], PROMPT, negative_prompt=NEGATIVE, size=(SIZE, SIZE))
    (image,) = library.condition([photo], PROMPT, negative_prompt=NEGATIVE, size=(SIZE, SIZE))
    mixed = dataclasses.replace(text, references=image.references)
    (expected,) = library.sample([mixed], [7], steps=STEPS)
    torch.testing.assert_close(latent, expected, atol=1e-4, rtol=0)


def test_picture_equals_the_library_to_one_level(client, library, photo):
    edit = Edit(image=True)
    sampler = [edit.sample()[0], 0]
    decoded = edit.add("VAEDecode", samples=edit[sampler[0]]["inputs"]["samples"], vae=edit.vae)
    saved = edit.add("SaveImage", images=decoded, filename_prefix="test")
    result = np.asarray(Image.open(client.run(edit).files(saved)[0]), np.int16)
    (expected,) = library.edit([photo], PROMPT, size=(SIZE, SIZE), steps=STEPS, seed=7, negative_prompt=NEGATIVE)
    assert np.abs(result - np.asarray(expected, np.int16)).max() <= 1


def test_batch_has_consecutive_seeds(client):
    batch = sampled(client, Edit(batch_size=2))
    for k, latent in enumerate(batch.split(1)):
        torch.testing.assert_close(latent, sampled(client, Edit(), seed=7 + k), atol=1e-4, rtol=0)
    assert (batch[0] - batch[1]).abs().max() > 0.1


def test_strength_starts_from_the_latent(client, library, photo):
    edit = Edit(image=True)
    start = edit.add("VAEEncode", pixels=edit.add("LoadImage", image="photo.png"), vae=edit.vae)
    latent = normalised(sampled(client, edit, latent=start, strength=0.5))
    expected = library.edit(
        [photo], PROMPT, size=(SIZE, SIZE), steps=STEPS, strength=0.5, seed=7, negative_prompt=NEGATIVE, output="latent"
    )
    torch.testing.assert_close(latent, expected, atol=1e-4, rtol=0)


def test_mask_keeps_the_rest(client, photo):
    """The mask covers the right half; ComfyUI's empty mask changes nothing."""
    edit = Edit(image=True)
    start = edit.add("VAEEncode", pixels=edit.add("LoadImage", image="photo.png"), vae=edit.vae)
    kept, changed = (edit.add("SolidMask", value=value, width=SIZE, height=SIZE) for value in (0.0, 1.0))
    mask = edit.add("MaskComposite", destination=kept, source=changed, x=SIZE // 2, y=0, operation="add")
    masked = edit.add("SetLatentNoiseMask", samples=start, mask=mask)
    before, after = edit.save(start), edit.sample(latent=masked)
    run = client.run(edit)
    change = (run.latent(after) - run.latent(before)).abs()
    half = change.shape[-1] // 2
    assert change[..., :half].max() < 1e-5
    assert change[..., half:].mean() > 0.1


def test_progress_and_previews_arrive(client):
    edit = Edit(batch_size=1)
    node = edit.sample(seed=11)
    run = client.run(edit)
    sampler = edit[node[0]]["inputs"]["samples"][0]
    assert [value for key, value, top in run.progress if key == sampler and top == STEPS] == list(range(1, STEPS + 1))
    assert len(run.previews) >= STEPS
    preview = Image.open(io.BytesIO(run.previews[-1]))
    assert preview.mode == "RGB" and preview.width == preview.height  # as large as the host makes them
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (WAN_LATENTS_MEAN, WAN_LATENTS_STD))
    expected = tiny.preview((run.latent(node)[:1] - mean) / std)[0].permute(1, 2, 0).clamp(-1, 1)  # of the last step
    small = preview.resize((64, 64), Image.Resampling.BOX)  # its true size
    found = torch.from_numpy(np.asarray(small, np.float32)) / 127.5 - 1
    assert (found - expected).abs().mean() < 0.03  # JPEG's


def test_interrupt_ends_the_step_and_the_next_run_works(client):
    """At 256 pixels a step takes long enough for the request to arrive in the one after."""
    edit = Edit(size=256)
    edit.sample(seed=12, steps=1000)
    seen = []

    def stop(node: str, value: int) -> None:
        seen.append(value)
        if value == 3:
            client.post("/interrupt", {})

    run = client.run(edit, on_progress=stop)
    assert run.interrupted
    assert seen[-1] <= 4
    assert sampled(client, Edit(), seed=13).isfinite().all()


def test_ksampler_with_cfgnorm_equals_our_sampler(client):
    edit = Edit()
    patched = edit.add("CFGNorm", model=edit.model, strength=1.0, pre_cfg=True)
    theirs, ours = edit.ksampler(patched), edit.sample()
    run = client.run(edit)
    torch.testing.assert_close(run.latent(theirs), run.latent(ours), atol=1e-4, rtol=0)


def test_a_models_own_guidance_is_kept(client):
    """Ours after CFGNorm without rescaling is CFGNorm's, not plain guidance."""
    edit = Edit()
    patched = edit.add("CFGNorm", model=edit.model, strength=1.0, pre_cfg=True)
    kept, ours, plain = edit.sample(model=patched, rescale=0.0), edit.sample(), edit.sample(rescale=0.0)
    run = client.run(edit)
    torch.testing.assert_close(run.latent(kept), run.latent(ours), atol=1e-4, rtol=0)
    assert (run.latent(plain) - run.latent(ours)).abs().max() > 0.01


def test_guider_and_schedule_in_the_custom_sampler(client):
    edit = Edit()
    guider = edit.add("JoyImageGuider", model=edit.model, positive=edit.positive, negative=edit.negative, guidance=4.0)
    theirs, ours = edit.save(edit.custom(guider)), edit.sample()
    run = client.run(edit)
    torch.testing.assert_close(run.latent(theirs), run.latent(ours), atol=1e-4, rtol=0)


def test_lora_changes_the_result_and_at_strength_0_does_not(client, lora):
    edit = Edit()
    saved = [edit.sample()]
    for strength in (0.0, 1.0):
        choice = {"lora_name": lora, "strength_model": strength}
        saved.append(edit.sample(model=edit.add("LoraLoaderModelOnly", model=edit.model, **choice)))
    run = client.run(edit)
    plain, off, on = map(run.latent, saved)
    torch.testing.assert_close(off, plain, atol=0, rtol=0)
    assert (on - plain).abs().max() > 1e-3


def test_lora_as_a_hook_equals_the_patched_model(client, lora):
    """Hooks patch the weights while a prompt runs; on both prompts that is the whole model."""
    edit = Edit()
    patched = edit.add("LoraLoaderModelOnly", model=edit.model, lora_name=lora, strength_model=1.0)
    hooks = edit.add("CreateHookLoraModelOnly", lora_name=lora, strength_model=1.0)
    hooked = {
        name: edit.add("ConditioningSetProperties", cond_NEW=cond, strength=1.0, set_cond_area="default", hooks=hooks)
        for name, cond in (("positive", edit.positive), ("negative", edit.negative))
    }
    saved = [edit.sample(model=patched), edit.sample(**hooked)]
    run = client.run(edit)
    torch.testing.assert_close(*map(run.latent, saved), atol=1e-4, rtol=0)


def test_model_sampling_shift_acts_on_comfyuis_schedule(client):
    edit = Edit()
    shifted = edit.add("ModelSamplingSD3", model=edit.model, shift=3.0)
    patched = edit.add("CFGNorm", model=shifted, strength=1.0, pre_cfg=True)
    theirs, ours = edit.ksampler(patched), edit.sample(shift=3.0)
    run = client.run(edit)
    torch.testing.assert_close(run.latent(theirs), run.latent(ours), atol=1e-4, rtol=0)


def test_easycache_skips_steps(client):
    edit = Edit()
    saved = [edit.sample(steps=12)]
    for threshold in (0.0, 0.5):
        settings = {"reuse_threshold": threshold, "start_percent": 0.1, "end_percent": 0.95, "verbose": False}
        saved.append(edit.sample(model=edit.add("EasyCache", model=edit.model, **settings), steps=12))
    run = client.run(edit)
    plain, never, often = map(run.latent, saved)
    torch.testing.assert_close(never, plain, atol=0, rtol=0)
    assert (often - plain).abs().max() > 1e-3
    counts = re.findall(r"EasyCache - skipped (\d+)/12 steps", client.log.read_text(errors="replace"))
    fewest, most = sorted(map(int, counts[-2:]))
    assert fewest == 0 < most


BAD = {
    "negative is not connected": lambda edit: {"negative": None},
    "the latent is empty": lambda edit: {"strength": 0.5},
    "this model takes 16 channels": lambda edit: {"latent": edit.add("LoadLatent", latent="four.latent")},
    "is no rectified-flow model": lambda edit: {
        "model": edit.add("ModelSamplingDiscrete", model=edit.model, sampling="eps", zsnr=False)
    },
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(client, base_directory, message):
    four = {"latent_tensor": torch.ones(1, 4, 8, 8), "latent_format_version_0": torch.tensor([])}
    save_file(four, base_directory / "input" / "four.latent")
    edit = Edit()
    node = edit.sample(**BAD[message](edit))
    sampler = edit[edit[node[0]]["inputs"]["samples"][0]]["inputs"]
    for name in [name for name, value in sampler.items() if value is None]:
        del sampler[name]
    with pytest.raises(Failed, match=message):
        client.run(edit)


def test_settings_out_of_range_are_refused_before_running(client):
    edit = Edit()
    edit.sample(steps=0)
    with pytest.raises(Rejected, match="steps"):
        client.run(edit)


def test_networks_equal_the_library_and_comfyuis_class(probe):
    figures = probe("forward")
    assert figures["library"] < 1e-5
    assert figures["core"] < 1e-5


def test_networks_run_the_same_when_offloaded(probe):
    for name, figures in probe("offloading").items():
        assert figures["offloaded"] > 20, name
        assert figures["difference"] < 1e-5, name


def test_patches_replace_blocks(probe):
    figures = probe("block_patches")
    assert figures["seen"] == [0, 1, 2, 3, 4, 5]
    assert figures["kept"] < 1e-5
    assert figures["skipped"] > 1e-2


def test_torch_compile_wraps_the_network(probe):
    figures = probe("compiled")
    assert figures["compiled"] == 1
    assert figures["difference"] < 1e-5
