"""Run by ComfyUI's Python, `training_probe.py COMFYUI`: prints what training makes of the host's MODELs, as JSON."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from probes import PACK, core_network, difference, draw, import_host, inputs, library, rows_state

LAYER = "double_blocks.1.attn.img_attn_qkv"
STEPS = 2


class Samples(list):
    """Two edits and what tells them from others."""

    key = "probe"

    @property
    def shapes(self):
        return [tuple(tuple(each.shape[-2:]) for each in (s.latent, *s.references)) for s in self]


def samples() -> Samples:
    make = library("training.samples").Sample
    texts = [(draw(9 + k, 128, seed=k), draw(7, 128, seed=9)) for k in range(2)]
    return Samples(
        make(draw(16, 1, 8, 6, seed=k), (draw(16, 1, 8, 6, seed=k + 5),), *texts[k]) for k in range(len(texts))
    )


def settings(**options):
    own = {"steps": STEPS, "learning_rate": 0.02, "rank": 4, "warm_up": 1, "sample_every": 0, "save_every": 0}
    return library("training.settings").Training(**{**own, **options})


def models(host, folder: Path) -> dict[str, tuple[Any, Any]]:
    """MODELs of all kinds, each with the library's network on the same weights."""
    import torch
    from safetensors.torch import save_file

    made: dict[str, tuple[Any, Any]] = {}
    tiny = library("tiny").mmdit
    load_mmdit = torch.inference_mode()(host.load_mmdit)  # as ComfyUI runs nodes
    made["plain"] = load_mmdit(None), tiny()
    patched, reference = load_mmdit(None), tiny()
    change = draw(*reference.get_submodule(LAYER).weight.shape, seed=9) / 10
    patched.add_patches({f"diffusion_model.{LAYER}.weight": ("diff", (change,))})
    reference.get_submodule(LAYER).weight.data += change
    made["patched"] = patched, reference
    offloaded = load_mmdit(None)
    offloaded.add_patches({f"diffusion_model.{LAYER}.weight": ("diff", (change,))})
    offloaded.load(torch.device("cpu"), lowvram_model_memory=1)
    made["offloaded"] = offloaded, reference
    for name, noted in (("host's int8", 1), ("our int8", 0)):
        file = folder / f"int8-{noted}.safetensors"
        save_file(rows_state(torch.int8, noted), file)
        made[name] = load_mmdit(file), library("checkpoints").load_mmdit(file, dtype=torch.float32)
    rounded = tiny()
    for name, parameter in rounded.named_parameters():
        if "time_embedder" not in name:  # float32 in every dtype
            parameter.data = parameter.data.to(torch.float8_e4m3fn).float()
    made["fp8"] = load_mmdit(None, "fp8_e4m3fn"), rounded
    return made


def gradient(network, checkpointing: bool) -> tuple[Any, Any]:
    """The velocity with an adapter on a network, and the gradient of its square in the adapter's weights."""
    import torch

    x, t, context, references = inputs()
    adapter = library("training.adapter").Adapter(network, settings(), "cpu")
    adapter.load({name: draw(*p.shape, seed=i) / 20 for i, (name, p) in enumerate(adapter.tensors().items())})
    velocity = library("training.forward").velocity
    made = velocity(network, x, t / 1000, context, references, checkpointing=checkpointing)
    made.square().sum().backward()
    found = torch.cat([p.grad.flatten() for p in adapter.parameters()])
    adapter.remove()
    return made.detach(), found


def twins(host, folder: Path) -> dict[str, list[float]]:
    """How far velocity and gradient of each MODEL's twin are from the library's, as shares of their largest."""
    result = {}
    for name, (model, reference) in models(host, folder).items():
        if name != "offloaded":
            with host.at_work(model, 0):
                pass
        ours = gradient(host.twin(model), checkpointing=True)
        wanted = gradient(reference, checkpointing=False)
        result[name] = [difference(a, b) / b.abs().max().item() for a, b in zip(ours, wanted, strict=True)]
    return result


class Stop(Exception):
    pass


def trained(host, folder: Path) -> dict[str, Any]:
    """Whether MODELs are what they were, to the bit, after a training and after one that was interrupted; what its
    LoRA does on ComfyUI's own class."""
    import comfy.sd

    train = library("training.trainer").train
    result: dict[str, Any] = {}
    made = models(host, folder)
    for name in ("plain", "our int8", "host's int8", "offloaded"):
        model = made[name][0]
        state = {key: value.clone() for key, value in model.model.state_dict().items()}
        modules = [id(module) for module in model.model.modules()]

        def stop(progress):
            raise Stop

        same = []
        for number, callback in enumerate((None, stop)):
            place = folder / f"{name}-{number}"
            with contextlib.suppress(Stop):
                lora = train(host.twin(model), samples(), settings(), place, callback=callback)
            now = model.model.state_dict()
            same.append(now.keys() == state.keys() and all(bits(now[key]) == bits(state[key]) for key in state))
            same.append([id(module) for module in model.model.modules()] == modules)
        result[name] = all(same)
        if name == "plain":
            result["core"] = on_core(model, comfy.sd, lora.comfy())
    return result


def bits(tensor) -> bytes:
    import torch

    return tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes()


def on_core(model, sd, tensors) -> list[float]:
    """How far ComfyUI's own class is from ours with a LoRA, and how far that moves ours."""
    x, t, context, references = inputs()

    def velocity(network):
        with mock.patch.object(model.model, "diffusion_model", network):
            patched, _ = sd.load_lora_for_models(model, None, tensors, 1.0, 0)
            patched.patch_model()
            made = network(x, t, context, ref_latents=references, transformer_options={})
            patched.unpatch_model()
            return made, network(x, t, context, ref_latents=references, transformer_options={})

    ours, plain = velocity(model.model.diffusion_model)
    core, _ = velocity(core_network(model.model.diffusion_model))
    return [difference(core, ours), difference(ours, plain)]


def without_extra(host) -> dict[str, Any]:
    """What importing the pack's nodes has brought of the packages that training needs, and what is said without."""
    nodes = importlib.import_module(".nodes.training", PACK)
    loaded = [name for name in nodes.NEEDED if name in sys.modules]
    with mock.patch.object(nodes.importlib.util, "find_spec", lambda name: None):
        return {"loaded": loaded, "verdict": str(nodes.TrainLora.validate_inputs(steps=3))}


def another_network(host) -> str:
    model = host.load_mmdit(None)
    core = core_network(model.model.diffusion_model)
    with mock.patch.object(model.model, "diffusion_model", core):
        try:
            host.twin(model)
        except library("errors").JoyImageError as error:
            return str(error)
    return ""


def main() -> None:
    host = import_host(sys.argv[1])
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        with torch.inference_mode():
            results: dict[str, Any] = {"without_extra": without_extra(host), "another": another_network(host)}
        for name, probe in (("twins", twins), ("trained", trained)):
            results[name] = probe(host, Path(folder))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
