"""What computes a MODEL's products, attention and blocks in a running ComfyUI: the same pictures, for one branch."""

from __future__ import annotations

import shutil

import pytest
import torch
from edits import Edit, sampled

from tools.client import Failed

STEPS = 3
compiles = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="there is no C++ compiler")


def speed(edit: Edit, model: list | None = None, **values) -> list:
    return edit.add("JoyImageSpeed", **({"model": model or edit.model, "preset": "exact"} | values))


@pytest.mark.parametrize("attention", ["auto", "math"])
def test_attention_is_computed_by_another(client, photo, attention):
    edit = Edit(image=True)
    saved = [edit.sample(steps=STEPS), edit.sample(steps=STEPS, model=speed(edit, attention=attention))]
    run = client.run(edit)
    own, other = map(run.latent, saved)
    torch.testing.assert_close(other, own, atol=1e-4, rtol=0)


def test_what_a_device_lacks_is_named(client):
    edit = Edit()
    edit.sample(model=speed(edit, attention="cudnn"))
    with pytest.raises(Failed, match="attention 'cudnn' does not run on cpu; choose auto, flash, math"):
        client.run(edit)


@compiles
def test_compiled_blocks_compute_the_same_with_whatever_else_is_patched(client, photo, lora):
    """For our sampler and the host's, sizes, batches, LoRAs and what keeps references; only where it is asked for."""
    edit = Edit(image=True)
    fast = speed(edit, compile=True)
    patched = edit.add("LoraLoaderModelOnly", model=edit.model, lora_name=lora, strength_model=1.0)
    saved = []
    for plain, compiled, options in (
        (edit.model, fast, {}),
        (edit.model, fast, {"guidance": 1.0}),
        (patched, speed(edit, patched, compile=True), {}),
        (edit.model, speed(edit, fast, compile=True, reference_every=2), {"reference_every": 2}),
    ):
        saved.append(
            (edit.sample(steps=STEPS, model=plain, **options), edit.sample(steps=STEPS, model=compiled, **options))
        )
    saved.append((edit.ksampler(edit.model, steps=STEPS), edit.ksampler(fast, steps=STEPS)))
    run = client.run(edit)
    for plain, compiled in saved:
        torch.testing.assert_close(run.latent(compiled), run.latent(plain), atol=2e-4, rtol=0)
    assert "torch.compile failed" not in client.log.read_text(errors="replace")


@compiles
def test_the_hosts_own_compile_node_goes_on_working(client):
    edit = Edit()
    compiled = edit.add("TorchCompileModel", model=edit.model, backend="inductor")
    saved = [edit.sample(steps=STEPS), edit.sample(steps=STEPS, model=compiled)]
    run = client.run(edit)
    plain, other = map(run.latent, saved)
    torch.testing.assert_close(other, plain, atol=2e-4, rtol=0)


def test_products_of_plain_weights_are_exact_and_said_to_be(client):
    edit = Edit()
    saved = [edit.sample(steps=STEPS)]
    node = speed(edit, products="8bit")
    saved.append(edit.sample(steps=STEPS, model=node))
    run = client.run(edit)
    exact, rounded = map(run.latent, saved)
    assert torch.equal(exact, rounded)
    assert "no weights are quantised, so all run exact" in str(run.outputs[node[0]])


def test_without_a_choice_nothing_changes(client):
    edit = Edit()
    default = sampled(client, edit, steps=STEPS)
    again = Edit()
    off = speed(again, products="default", attention="default", compile=False)
    assert torch.equal(sampled(client, again, steps=STEPS, model=off), default)


@pytest.mark.parametrize("weights", ["plain", "patched", "host", "ours"])
def test_three_graphs_serve_the_hosts_layers_too(probe, weights):
    graphs, worst = probe("compiled_blocks")[weights]
    assert graphs == 3
    assert worst < 1e-5
