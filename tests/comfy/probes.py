"""Run by ComfyUI's Python, `probes.py COMFYUI`: prints {name: [result, traceback]} of every function in `PROBES`."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

PACK = "/custom_nodes/joyimage_under_test"  # ComfyUI names a pack's module by its path


def import_host(comfyui: str, options: tuple[str, ...] = ("--cpu",)) -> ModuleType:
    """The pack's `nodes.host`, imported as ComfyUI with these options imports packs."""
    sys.path.insert(0, comfyui)
    # PyTorch's attention, as on graphics cards: what ComfyUI takes on the CPU cannot be traced in one piece.
    sys.argv = ["main.py", *options, "--use-pytorch-cross-attention"]
    import comfy.options

    comfy.options.enable_args_parsing()
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location(PACK, root / "__init__.py", submodule_search_locations=[str(root)])
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])
    return importlib.import_module(".nodes.host", PACK)


def library(name: str) -> ModuleType:
    """A module of the library, as the pack imports it."""
    return importlib.import_module(f".joyimage.{name}", PACK)


def draw(*shape: int, seed: int = 0):
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(a, b) -> float:
    return (a - b).abs().max().item()


def inputs(batch: int = 1):
    """x, timestep, context and two references of different sizes."""
    import torch

    references = [draw(batch, 16, 1, 8, 6, seed=2), draw(batch, 16, 1, 4, 10, seed=3)]
    return draw(batch, 16, 1, 8, 6), torch.full((batch,), 731.25), draw(batch, 11, 128, seed=1), references


def core_network(network):
    """The host's own class on the weights of a network of ours."""
    from dataclasses import asdict

    import comfy.ldm.joyimage.model
    import comfy.ops
    import torch

    sizes = asdict(network.config)
    core = comfy.ldm.joyimage.model.JoyImageTransformer3DModel(
        hidden_size=sizes["hidden_size"],
        num_attention_heads=sizes["num_heads"],
        text_dim=sizes["text_dim"],
        mlp_width_ratio=sizes["mlp_size"] / sizes["hidden_size"],
        num_layers=sizes["num_layers"],
        rope_dim_list=list(sizes["rope_dims"]),
        theta=sizes["theta"],
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    core.load_state_dict(network.state_dict())
    return core


def forward(host) -> dict[str, float]:
    """Our MODEL's network against the library's, and against the host's own class on the same weights."""
    network, _, _ = library("tiny").build()
    core = core_network(network)
    x, t, context, references = inputs(batch=2)
    ours = host.load_mmdit(None).model.diffusion_model(x, t, context, references, transformer_options={})
    return {
        "library": difference(ours, network(x, t, context, references)),
        "core": difference(ours, core(x, t, context, references, transformer_options={})),
    }


def offloading(host) -> dict[str, float]:
    """Each network with next to nothing of it loaded, against all of it loaded."""
    import numpy as np
    import torch
    from PIL import Image

    x, t, context, references = inputs()
    pixels = draw(1, 32, 48, 3).clamp(0, 1)
    picture = Image.fromarray((pixels[0].numpy() * 255).astype(np.uint8))
    plain_encoder = library("encoder").Encoder
    model, vae, encoder = host.load_mmdit(None), host.load_vae(None), host.load_encoder(None)
    runs = {
        "model": (model, lambda: model.model.diffusion_model(x, t, context, references, transformer_options={})),
        "vae": (vae.patcher, lambda: vae.first_stage_model.encode(pixels.movedim(-1, 1).unsqueeze(2))),
        "encoder": (encoder.patcher, lambda: plain_encoder.encode(encoder, ["a cup", "two"], [picture])[1]),
    }
    result = {}
    for name, (patcher, run) in runs.items():
        whole = run()
        patcher.load(torch.device("cpu"), lowvram_model_memory=1)
        layers = [m for m in patcher.model.modules() if getattr(m, "comfy_cast_weights", False)]
        result[name] = {"difference": difference(run(), whole), "offloaded": len(layers)}
    return result


def block_patches(host) -> dict[str, float]:
    """A node's patch of every block that changes nothing, and one that skips the blocks."""
    x, t, context, references = inputs()
    network = host.load_mmdit(None).model.diffusion_model
    plain = network(x, t, context, references, transformer_options={})
    seen = []

    def keep(args, extra):
        seen.append(args["transformer_options"]["block_index"])
        return extra["original_block"](args)

    def skip(args, extra):
        return {"img": args["img"], "txt": args["txt"]}

    def run(patch):
        patches = {("double_block", i): patch for i in range(len(network.double_blocks))}
        return network(x, t, context, references, transformer_options={"patches_replace": {"dit": patches}})

    return {"kept": difference(run(keep), plain), "skipped": difference(run(skip), plain), "seen": seen}


def compiled(host) -> dict[str, float]:
    """The network traced by torch.compile through the host's wrapper; the traces run without a compiler."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    patcher = host.load_mmdit(None)
    x, t, context, references = inputs()
    conds = {"c_crossattn": context, "ref_latents": references}
    plain = patcher.model.apply_model(x, t / 1000, transformer_options={}, **conds)
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    set_torch_compile_wrapper(model=patcher, backend=backend)
    options = {"wrappers": patcher.wrappers}
    return {
        "difference": difference(patcher.model.apply_model(x, t / 1000, transformer_options=options, **conds), plain),
        "compiled": len(graphs),
    }


def compiled_blocks(host) -> dict[str, list]:
    """Blocks compiled one by one: graphs over sizes, lengths, references and pairs, and the largest difference.

    For weights in the host's layers, plain, with a LoRA's patch and quantised, and in layers of ours.
    """
    import torch
    from safetensors.torch import save_file

    blocks, run_block = library("compiling"), importlib.import_module(".model", host.__name__).RUN_BLOCK
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, noted in (("plain", None), ("patched", None), ("host", 1), ("ours", 0)):
            file = None
            if noted is not None:
                file = Path(folder) / f"{name}.safetensors"
                save_file(rows_state(torch.int8, noted), file)
            patcher, graphs = host.load_mmdit(file), []
            if name == "patched":
                key = "diffusion_model.double_blocks.1.attn.img_attn_qkv.weight"
                patcher.add_patches({key: ("diff", (draw(*patcher.model.state_dict()[key].shape, seed=9),))})
                patcher.patch_model()

            def backend(graph, example_inputs, graphs=graphs):
                graphs.append(graph)
                return graph.forward

            torch._dynamo.reset()
            worst = 0.0
            for size, length, batch, references in (
                ((8, 6), 11, 1, 2), ((4, 4), 7, 1, 0), ((8, 8), 64, 1, 1), ((6, 10), 11, 2, 1), ((12, 4), 30, 3, 3),
            ):  # fmt: skip
                x, t = draw(batch, 16, 1, *size), torch.full((batch,), 0.73125)
                latents = [draw(batch, 16, 1, 4, 6, seed=k) for k in range(references)]
                conds = {"c_crossattn": draw(batch, length, 128, seed=1), "ref_latents": latents}
                velocities = [
                    patcher.model.apply_model(x, t, transformer_options=options, **conds)
                    for options in ({}, {run_block: blocks.compiled_blocks(backend)})
                ]
                worst = max(worst, difference(*velocities) / velocities[0].abs().max().item())
            result[name] = [len(graphs), worst]
    torch._dynamo.reset()
    return result


def chosen_products(host) -> dict[str, dict]:
    """A choice of products for one of two MODELs on the same int8 weights, run by layers of ours and by the host's.

    For each choice how far its velocity is from that of exact products, and how many products summed int8: in the MODEL
    that has the choice, and in the other one. "note" is what is said of what runs exact.
    """
    import torch
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from safetensors.torch import save_file

    products = importlib.import_module(".products", host.__name__)
    x, t, context, references = inputs()
    result, sums = {}, []

    def exact_sums(a, b):  # what processors with VNNI give
        sums.append(1)
        return (a.double() @ b.double()).to(torch.int32)

    def velocity(patcher) -> tuple[torch.Tensor, int]:
        sums.clear()
        conds = {"c_crossattn": context, "ref_latents": references}
        options = {"wrappers": patcher.wrappers}
        return patcher.model.apply_model(x, t / 1000, transformer_options=options, **conds), len(sums)

    def error(value: torch.Tensor, wanted: torch.Tensor) -> float:
        return ((value - wanted).norm() / wanted.norm()).item()

    vnni = library("quantisation.kernels").Hardware("cpu", vnni=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(torch, "_int_mm", exact_sums),
        mock.patch.object(library("quantisation.layers"), "hardware", lambda device: vnni),
    ):
        for name, noted, stored in (("ours", 0, "int8"), ("host", 1, "int8"), ("fp8", 0, "float8_e4m3fn")):
            file = Path(folder) / f"{name}.safetensors"
            save_file(rows_state(getattr(torch, stored), noted), file)
            model = host.load_mmdit(file)
            branch = model.clone()
            notes = {kind: products.use_products(branch, kind) for kind in ("8bit", "exact")}
            wanted, _ = velocity(branch)
            result[name] = {"note": notes}
            for kind in products.PRODUCT_CHOICES:
                products.use_products(branch, kind)
                runs = [velocity(patcher) for patcher in (branch, model)]
                result[name][kind] = [(error(value, wanted), count) for value, count in runs]
            if name == "ours":
                set_torch_compile_wrapper(model=branch, backend="eager")
                result[name]["compiled"] = {}
                for kind in ("8bit", "exact"):
                    products.use_products(branch, kind)
                    result[name]["compiled"][kind] = error(velocity(branch)[0], wanted)
    return result


def rows_state(stored, noted: bool) -> dict:
    """The bundled MMDiT's weights with the blocks' matrices in 8 bits with a scale for each row; int8 with the host's
    note of each, or none."""
    import torch

    state = {}
    for name, tensor in library("tiny").mmdit().state_dict().items():
        state[name] = tensor
        if "double_blocks" in name and name.endswith("weight") and tensor.ndim == 2:
            scale = tensor.abs().amax(1, keepdim=True) / 127
            state |= {name: (tensor / scale).round().to(stored), f"{name}_scale": scale}
            if noted:
                note = torch.tensor([*b'{"format": "int8_tensorwise"}'], dtype=torch.uint8)
                state[f"{name.removesuffix('weight')}comfy_quant"] = note
    return state


def single_file_encoder(host) -> float:
    """An encoder of the released vocabulary in one file without a configuration, against the same one as built."""
    from safetensors.torch import save_model
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    text = {"vocab_size": 151936, "num_key_value_heads": 1, "head_dim": 16, "rope_theta": 5e6, **sizes}
    text["rope_scaling"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    vision = {"depth": 4, "hidden_size": 64, "intermediate_size": 64, "num_heads": 16, "out_hidden_size": 32}
    vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]}
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision)).eval()
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder, "encoder.safetensors"))
        managed = host.load_encoder(Path(folder, "encoder.safetensors"))
    plain = library("encoder").Encoder(model, managed.tokenizer)
    return difference(managed.encode(["a red cup"])[0], plain.encode(["a red cup"])[0])


def plain_processor(host) -> dict[str, float | list[str]]:
    """The encoder's file on a processor that computes in float32 alone, against all of it made float32."""
    import torch

    precision, load = library("precision"), library("checkpoints.load")
    with (
        mock.patch.object(precision, "native", lambda dtype, _: dtype == torch.float32),
        mock.patch.object(load, "WHOLE", 0),
    ):
        kept = host.load_encoder(library("tiny").FILES["encoder"])
    whole = host.load_encoder(None)
    prompts = ["Remove the red cube.", ""]
    pairs = zip(kept.encode(prompts), whole.encode(prompts), strict=True)
    return {
        "error": max(difference(a, b) for a, b in pairs),
        "kept in": [str(p.dtype) for p in kept.backbone.language_model.layers[0].mlp.parameters()],
        "answers": [
            one.answer((), "How many objects are there?", temperature=0, max_new_tokens=8) for one in (kept, whole)
        ],
    }


def saved_vae(host) -> float:
    """What the host's own VAE decodes from the file that VAESave writes of ours, against ours."""
    import comfy.sd
    import torch

    vae, latent = host.load_vae(None), draw(1, 16, 1, 4, 4)
    its = comfy.sd.VAE(sd=vae.get_sd(), dtype=torch.float32)
    return difference(its.decode(latent), vae.decode(latent))


def saved_checkpoint(host) -> dict[str, float]:
    """What CheckpointSave writes of MODEL and VAE, loaded again: the largest difference of a weight."""
    import comfy.sd

    model, vae = host.load_mmdit(None), host.load_vae(None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "checkpoint.safetensors")
        comfy.sd.save_checkpoint(str(file), model, vae=vae)
        again = host.load_mmdit(file).model.diffusion_model, host.load_vae(file).first_stage_model
        return {
            name: max(difference(kept.get_parameter(key), tensor) for key, tensor in network.state_dict().items())
            for name, kept, network in zip(
                ("mmdit", "vae"), again, (model.model.diffusion_model, vae.first_stage_model), strict=True
            )
        }


def loads_at_start(host) -> list[str]:
    """What the pack's nodes have imported of transformers' Qwen3-VL before a graph has asked for an encoder."""
    importlib.import_module(".nodes", PACK)
    return [name for name in sys.modules if name.startswith("transformers.models.qwen3_vl.modeling")]


def older_comfyui(host) -> str | None:
    """What the pack says when it is loaded by an older ComfyUI."""
    import asyncio

    import comfyui_version

    with mock.patch.object(comfyui_version, "__version__", "0.3.66"):
        try:
            asyncio.run(sys.modules[PACK].comfy_entrypoint())
        except RuntimeError as error:
            return str(error)
    return None


def shortcuts(host) -> dict[str, Any]:
    """Prompts in each forward of the host's KSampler with shortcuts, and what another network makes of them."""
    import comfy.sample
    import comfy.samplers
    import torch
    from comfy import model_management as management

    model, steps, latent = host.load_mmdit(None), 12, draw(1, 16, 1, 8, 8)
    network, passes = model.model.diffusion_model, []
    conds = [[[draw(1, length, 128, seed=length), dict(options)]] for length, options in ((11, {}), (7, {}))]

    def counting(forward):
        def count(x, timestep, context, **others):
            if passes and passes[-1][0] == timestep[0]:
                passes[-1] = timestep[0], passes[-1][1] + len(x)
            else:
                passes.append((timestep[0], len(x)))
            return forward(x, timestep, context=context, **others)

        return count

    def run(values, positive=conds[0], negative=conds[1], network=network):
        passes.clear()
        with mock.patch.object(network, "forward", counting(network.forward)):
            patched = host.with_shortcuts(model, values)
            return comfy.sample.sample(
                patched, latent, steps, 4.0, "euler", "simple", positive, negative, 0 * latent, seed=3
            )

    def counts(values, **prompts) -> list[int]:
        run(values, **prompts)
        return [number for _, number in passes]

    halves = [
        [text, {"start_percent": start, "end_percent": end}]
        for text, start, end in ((conds[0][0][0], 0.0, 0.5), (draw(1, 5, 128, seed=5), 0.5, 1.0))
    ]
    fast = {"forecast": 3, "guidance_every": 2}
    asked = []

    def required(values) -> float:
        """Bytes that the host makes room for, with a reference of 64 x 64."""
        referring = [[[text, {"reference_latents": [draw(1, 16, 64, 64)]}]] for [[text, _]] in conds]
        with mock.patch.object(management, "load_models_gpu", lambda *_, **options: asked.append(options)):
            host.guider(host.with_shortcuts(model, values), *referring, 4.0, 1.0).sample(
                latent, 0 * latent, comfy.samplers.KSAMPLER(lambda x, noise, *_, **__: noise), torch.tensor([1.0, 0.0])
            )
        return asked[-1]["memory_required"]

    config = network.config
    result: dict[str, Any] = {
        "kept": required({"reference_every": 2}) - required({}),
        "keys and values": 2 * 2 * config.hidden_size * config.num_layers * (64 * 64 // 4) * 4,
        "exact": counts({}),
        "forecast": counts({"forecast": 3}),
        "guidance": counts({"guidance_every": 2}),
        "both": counts(fast),
        "ranges": counts({"forecast": 4}, positive=halves),
        "sigmas": [timestep.item() / 1000 for timestep, _ in passes],
    }
    ours, other = run(fast), core_network(network)
    with mock.patch.object(model.model, "diffusion_model", other):
        result["other network"] = difference(run(fast, network=other), ours)
        try:
            host.with_shortcuts(model, {"reference_every": 2, "block_cache": 0.1})
        except library("errors").JoyImageError as error:
            result["refused"] = str(error)
    return result


def odd_runs(host) -> dict[str, Any]:
    """Shortcuts where a sampler adds noise or reads both prompts' results, and where a prompt has an area."""
    import comfy.sample

    model, latent = host.load_mmdit(None), draw(1, 16, 1, 8, 8)
    network = model.model.diffusion_model
    texts, references = (draw(1, 11, 128, seed=11), draw(1, 7, 128, seed=7)), [draw(1, 16, 8, 8, seed=2)]
    positive, negative = ([[text, {"reference_latents": references}]] for text in texts)
    in_area = [[texts[0], {"reference_latents": references, "area": (8, 4, 0, 0)}]]

    def run(values, sampler="euler", positive=positive):
        patched = host.with_shortcuts(model, values)
        return comfy.sample.sample(
            patched, latent, 12, 4.0, sampler, "simple", positive, negative, 0 * latent, seed=3, disable_pbar=True
        )

    def moved(sampler) -> float:
        return difference(run({"forecast": 4}, sampler), run({}, sampler))

    with_references, embed = [], network.embed

    def noting(x, timestep, context, references, *others):
        if references:
            with_references.append((x.shape[-1], context.shape[1]))
        return embed(x, timestep, context, references, *others)

    with mock.patch.object(network, "embed", noting):
        run({"reference_every": 40}, positive=in_area)
    samplers = "euler_ancestral", "dpmpp_2m_sde", "lcm", "euler_cfg_pp", "res_multistep_cfg_pp"
    others = "euler", "heun", "dpmpp_2m"
    return {
        "computed": {sampler: moved(sampler) for sampler in samplers},
        "forecast": {sampler: moved(sampler) for sampler in others},
        "with references": sorted(with_references),
    }


PROBES = (
    shortcuts,
    odd_runs,
    loads_at_start,
    forward,
    offloading,
    block_patches,
    compiled,
    compiled_blocks,
    chosen_products,
    single_file_encoder,
    plain_processor,
    saved_vae,
    saved_checkpoint,
    older_comfyui,
)


def main() -> None:
    host = import_host(sys.argv[1])
    import torch

    torch.set_num_threads(1)
    results = {}
    for probe in PROBES:
        try:
            with torch.inference_mode():
                results[probe.__name__] = probe(host), None
        except Exception:
            results[probe.__name__] = None, traceback.format_exc()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
