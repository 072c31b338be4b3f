"""Load LoRA in a running ComfyUI: what the library makes of a file, and what ComfyUI's own loaders do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_lora_families import FAMILIES, NAMINGS, tiny_modules, write

from joyimage.config import WAN_LATENTS_MEAN, WAN_LATENTS_STD
from tools.client import TINY, Failed, Graph, Rejected, output

PROMPT = "A yellow cone on plain slate ground."
SIZE, STEPS = 64, 2
LAYER = "double_blocks.1.attn.img_attn_qkv"


class Picture(Graph):
    """A graph up to the sampler."""

    def __init__(self, **options):
        super().__init__()
        self.model = self.add("JoyImageLoadMMDiT", model=TINY, **options)
        encoder = self.add("JoyImageLoadEncoder", encoder=TINY)
        size = {"base_size": "256", "width": SIZE, "height": SIZE}
        self.encoded = self.add("JoyImageEncodePrompt", encoder=encoder, prompt=PROMPT, negative_prompt="", **size)

    def load(self, lora: str, strength: float = 1.0, model: list | None = None) -> list:
        return self.add("JoyImageLoadLora", model=model or self.model, lora=lora, strength=strength)

    def sample(self, model: list) -> list:
        positive, negative, latent = (output(self.encoded, i) for i in range(3))
        inputs = {"positive": positive, "negative": negative, "latent": latent, "model": model}
        sampled = self.add("JoyImageSampler", **inputs, seed=7, steps=STEPS, guidance=1.0)
        return self.add("SaveLatent", samples=sampled, filename_prefix="lora")


def normalised(latent: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (WAN_LATENTS_MEAN, WAN_LATENTS_STD))
    return (latent - mean) / std


@pytest.fixture(scope="module")
def folder(base_directory) -> Iterator[Path]:
    """The server's folder of LoRAs, which other tests want empty."""
    loras = base_directory / "models" / "loras"
    loras.mkdir(exist_ok=True)
    yield loras
    shutil.rmtree(loras)


def expected(library, *loras: tuple[Path, float]) -> torch.Tensor:
    library.set_loras(*((str(path), strength) for path, strength in loras))
    try:
        return library.generate(PROMPT, size=(SIZE, SIZE), steps=STEPS, seed=7, guidance_scale=1.0, output="latent")
    finally:
        library.set_loras()


def pair(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Factors for the layer `LAYER` of the bundled model, under this name of it."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"lora_A": (4, 160), "lora_B": (480, 4)}
    return {f"{name}.{key}.weight": torch.randn(s, generator=generator) * 0.3 for key, s in shapes.items()}


def test_every_family_does_what_the_library_does(client, library, folder):
    picture = Picture()
    before = picture.sample(picture.model)
    saved = {}
    for i, family in enumerate(FAMILIES):
        path = write(folder / f"family{i}.safetensors", tiny_modules(family))
        saved[family] = path, picture.sample(picture.load(path.name, 0.7))
    run = client.run(picture)
    plain = run.latent(before)
    for family, (path, node) in saved.items():
        wanted = expected(library, (path, 0.7))
        torch.testing.assert_close(normalised(run.latent(node)), wanted, atol=1e-4, rtol=0, msg=family)
        assert (run.latent(node) - plain).abs().max() > 1e-3, family


def test_every_naming_does_what_comfyuis_own_does_in_its_own(client, folder):
    save_file(pair(f"diffusion_model.{LAYER}"), folder / "core.safetensors")
    picture = Picture()
    core = picture.add("LoraLoaderModelOnly", model=picture.model, lora_name="core.safetensors", strength_model=0.6)
    wanted = picture.sample(core)
    namings = {**NAMINGS, "without attn": lambda name: f"transformer.{name.replace('.attn.', '.')}"}
    saved = {}
    for i, (naming, rename) in enumerate(namings.items()):
        save_file(pair(rename(LAYER)), folder / f"naming{i}.safetensors")
        saved[naming] = picture.sample(picture.load(f"naming{i}.safetensors", 0.6))
    run = client.run(picture)
    for naming, node in saved.items():
        torch.testing.assert_close(run.latent(node), run.latent(wanted), atol=1e-5, rtol=0, msg=naming)


@pytest.mark.parametrize("family", ["LoHa", "LoKr, inner a product", "LoRA with a core", "OFT", "difference"])
def test_comfyuis_own_loader_does_the_same_where_it_knows_the_naming(client, folder, family):
    name = f"core {family}.safetensors"  # ComfyUI's own loader never reads a file of one name again
    write(folder / name, tiny_modules(family))
    picture = Picture()
    core = picture.add("LoraLoaderModelOnly", model=picture.model, lora_name=name, strength_model=1.0)
    saved = [picture.sample(core), picture.sample(picture.load(name))]
    run = client.run(picture)
    torch.testing.assert_close(*map(run.latent, saved), atol=1e-4, rtol=0)


def test_several_follow_each_other_and_strength_0_is_none(client, library, folder):
    paths = []
    for i, family in enumerate(("DoRA", "LoRA")):
        paths.append(write(folder / f"several{i}.safetensors", tiny_modules(family)))
    picture = Picture()
    both = picture.load(paths[1].name, -0.5, picture.load(paths[0].name, 0.8))
    saved = [picture.sample(picture.model), picture.sample(picture.load(paths[0].name, 0.0)), picture.sample(both)]
    run = client.run(picture)
    plain, off, two = map(run.latent, saved)
    torch.testing.assert_close(off, plain, atol=1e-6, rtol=0)
    wanted = expected(library, (paths[0], 0.8), (paths[1], -0.5))
    torch.testing.assert_close(normalised(two), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn"])
def test_weights_in_fp8_take_it(client, folder, weight_dtype):
    """They are computed in another precision, so only that it takes effect is compared."""
    save_file(pair(f"transformer.{LAYER}"), folder / "fp8.safetensors")
    picture = Picture(weight_dtype=weight_dtype)
    saved = [picture.sample(picture.model), picture.sample(picture.load("fp8.safetensors"))]
    run = client.run(picture)
    plain, changed = map(run.latent, saved)
    assert (changed - plain).abs().max() > 1e-3


def test_what_matches_nothing_is_told_on_the_node(client, folder):
    save_file(pair(LAYER) | pair("text_encoder.model.layers.0.mlp.up_proj"), folder / "more.safetensors")
    picture = Picture()
    loaded = picture.load("more.safetensors")
    picture.sample(loaded)
    run = client.run(picture)
    assert "2 keys match nothing" in run.outputs[loaded[0]]["text"][0]


def test_another_models_file_fails_by_name(client, folder):
    save_file(pair("transformer_blocks.0.to_q"), folder / "other.safetensors")
    picture = Picture()
    picture.sample(picture.load("other.safetensors"))
    with pytest.raises(Failed, match="is a LoRA of another model: none of its layers is here"):
        client.run(picture)


def test_a_file_that_is_not_there_marks_its_field(client):
    picture = Picture()
    picture.sample(picture.load("nowhere.safetensors"))
    with pytest.raises(Rejected, match=r"not in models/loras\. Put the file there"):
        client.run(picture)


def test_a_file_that_was_trained_on_is_read_again(client, folder):
    path = folder / "trained.safetensors"
    save_file(pair(LAYER), path)
    latents = []
    for seed in (1, 2):
        picture = Picture()
        node = picture.sample(picture.load(path.name))
        latents.append(client.run(picture).latent(node))
        save_file(pair(LAYER, seed=9), path)
        os.utime(path, ns=(seed * 10**9, seed * 10**9))
    assert (latents[1] - latents[0]).abs().max() > 1e-3
    assert load_file(path)
