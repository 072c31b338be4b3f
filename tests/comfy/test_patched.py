"""What ComfyUI's own nodes do to our models: LoRAs and merges over plain and quantised weights, and files of them."""

from __future__ import annotations

import shutil

import pytest
import torch
from loadable import FORMATS
from pieces import NO_VNNI, PROMPT, int8_is_exact
from safetensors.torch import save_file

from joyimage import tiny
from joyimage.checkpoints import load_mmdit, load_vae
from joyimage.checkpoints.vae_keys import original_to_diffusers
from tools.client import TINY, Graph, output

LORA = "patched.safetensors"
KINDS = {  # the file's name, and how far weights in this format may move a result from that of plain ones
    "fp8, squares": ("squares.safetensors", 0.06),
    "fp8 in bytes, weight_scale and note": ("scaled.safetensors", 0.12),  # ComfyUI makes fp8 of it again
    "int8, rows": ("int8.safetensors", 0.06),
    "Q8_0": ("blocks.gguf", 0.03),
}


@pytest.fixture(scope="module")
def files(base_directory):
    """Weights of the bundled MMDiT and updates of some; the server has a file in each format, and a LoRA of these."""
    folder = base_directory / "models"
    for name in ("diffusion_models", "loras"):
        (folder / name).mkdir(exist_ok=True)
    state = tiny.mmdit().state_dict()
    names = [name for name, tensor in state.items() if "double_blocks" in name and tensor.ndim == 2]
    for form, (file, _) in KINDS.items():
        FORMATS[form].write(folder / "diffusion_models" / file, state, names)
    seeds = torch.Generator().manual_seed(0)
    factors, updates = {}, {}
    for name in names[:6]:
        rows, columns = state[name].shape
        down, up = (torch.randn(size, generator=seeds) * 0.6 for size in ((4, columns), (rows, 4)))
        layer = f"diffusion_model.{name.removesuffix('.weight')}"
        factors |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
        updates[name] = up @ down
    save_file(factors, folder / "loras" / LORA)
    yield state, updates
    shutil.rmtree(folder / "loras")  # other tests want it empty


def add_lora(graph: Graph, model: list) -> list:
    return graph.add("LoraLoaderModelOnly", model=model, lora_name=LORA, strength_model=1.0)


def merge(graph: Graph, model: list) -> list:
    """The other way round ComfyUI cannot: it looks for scales beside the layers of what its own kernels run."""
    other = add_lora(graph, graph.add("JoyImageLoadMMDiT", model=TINY))
    return graph.add("ModelMergeSimple", model1=model, model2=other, ratio=0.5)


CHANGES = {"lora": add_lora, "merge": merge}


def sampled(client, file: str, change=None, prefix: str | None = None) -> torch.Tensor:
    """The latent of one step with a file, patched and perhaps saved."""
    graph = Graph()
    model = graph.add("JoyImageLoadMMDiT", model=file)
    model = change(graph, model) if change else model
    if prefix:
        graph.add("ModelSave", model=model, filename_prefix=prefix)
    inputs = {"prompt": PROMPT, "negative_prompt": "", "base_size": "256", "width": 64, "height": 64}
    encoder = graph.add("JoyImageLoadEncoder", encoder=TINY)
    encoded = graph.add("JoyImageEncodePrompt", encoder=encoder, **inputs)
    wires = {"model": model, "positive": encoded, "negative": output(encoded, 1), "latent": output(encoded, 2)}
    latent = graph.add("JoyImageSampler", **wires, seed=3, steps=1, guidance=1.0)
    saved = graph.add("SaveLatent", samples=latent, filename_prefix="patched")
    return client.run(graph).latent(saved)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", KINDS)
def test_patches_over_quantised_weights_are_those_over_plain_ones(client, files, form, change):
    """And they show: the result without them is further off than the bound."""
    if form == "int8, rows" and not int8_is_exact():
        pytest.skip(NO_VNNI)
    file, bound = KINDS[form]
    plain, expected = sampled(client, TINY), sampled(client, TINY, CHANGES[change])
    found = sampled(client, file, CHANGES[change])
    assert (found - expected).std() <= bound * expected.std()
    assert (expected - plain).std() > bound * expected.std()


@pytest.mark.parametrize("form", ["fp8, squares", "Q8_0"])
def test_a_saved_model_has_the_patches_in_it(client, files, form):
    """ComfyUI's files have no note for these formats, so their matrices are saved in bf16."""
    state, updates = files
    prefix = f"patched_{KINDS[form][0].partition('.')[0]}"
    sampled(client, KINDS[form][0], add_lora, prefix)
    (file,) = (client.base / "output").glob(f"{prefix}*.safetensors")
    saved = load_mmdit(file, dtype=torch.float32).state_dict()
    assert saved.keys() == state.keys()
    for name, weight in state.items():
        expected = weight + updates.get(name, 0)
        assert (saved[name] - expected).norm() <= 0.03 * expected.norm(), name


def test_a_saved_vae_is_the_same_for_us_and_for_comfyui(client, probe):
    graph = Graph()
    graph.add("VAESave", vae=graph.add("JoyImageLoadVAE", vae=TINY), filename_prefix="saved_vae")
    client.run(graph)
    (file,) = (client.base / "output").glob("saved_vae*.safetensors")
    saved, bundled = load_vae(file).state_dict(), tiny.vae().state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in bundled.items())
    assert original_to_diffusers(saved).keys() == saved.keys()
    assert probe("saved_vae") < 1e-4


def test_a_checkpoint_of_model_and_vae_loads_again(probe):
    assert probe("saved_checkpoint") == {"mmdit": 0.0, "vae": 0.0}
