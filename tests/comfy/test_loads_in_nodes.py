"""The table of tests/loadable.py through the loader nodes of a running ComfyUI, beside what the library makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from loadable import COMPONENTS, FORMATS, PLACES, error, fits, state_of, write
from pieces import NO_VNNI, int8_is_exact, latents
from refused import REFUSED
from torch import Tensor

from joyimage import JoyImage, tiny
from joyimage.checkpoints import load_encoder, load_mmdit, load_vae
from tools.client import Failed, Graph, output

LOADERS = {
    "mmdit": ("JoyImageLoadMMDiT", "model", "diffusion_models", "transformer"),
    "vae": ("JoyImageLoadVAE", "vae", "vae", "vae"),
    "encoder": ("JoyImageLoadEncoder", "encoder", "text_encoders", "text_encoder"),
}
PROMPT, SIDE, SEED = "a red cup", 64, 3
LISTED = (".safetensors", ".pth", ".pt", ".pt2", ".gguf")  # files that ComfyUI offers
EXACT = 2e-3  # half of bf16's step, in which encoders compute on processors that can
ROUNDED = {"int8": 3e-2, "nvfp4": 5e-3}  # by ComfyUI's kernels: activations to int8, weights to bf16
IN_LAYOUTS = [(layout, form) for layout in PLACES for form in ("bf16", "fp8, rows", "Q8_0") if fits(layout, form)]
BLOCKS = ("Q8_0", "Q4_K", "Q2_K", "F16")  # of GGUF, whose other types take the same way
IN_FORMATS = [
    (next(layout for layout in PLACES[4:] if fits(layout, form)), form)
    for form in FORMATS
    if not FORMATS[form].gguf or form in BLOCKS
]


@dataclass(frozen=True)
class Models:
    """Where a server has its models, and the weights to put there."""

    root: Path
    states: dict[str, dict[str, Tensor]]
    tokenizer: Callable[[Path], object]

    def write(self, layout: str, form: str) -> dict[str, tuple[str, Path]]:
        """All components in a layout and format: for each the loader's choice and the path."""
        name = re.sub(r"\W+", "_", f"{layout} {form}")
        if layout.startswith("Diffusers"):
            return self._whole(self.root / "diffusers" / name, layout, form)
        written = {}
        for component, (_, _, place, _) in LOADERS.items():
            folder = self.root / place / name
            folder.mkdir(parents=True)
            path = write(component, self.states[component], form, layout, folder)
            written[component] = path.relative_to(self.root / place).as_posix(), path
        self.tokenizer(written["encoder"][1].parent)
        return written

    def _whole(self, folder: Path, layout: str, form: str) -> dict[str, tuple[str, Path]]:
        """As one model's folder, which is what the loaders offer."""
        written = {}
        for component, (_, _, _, part) in LOADERS.items():
            (folder / "writing").mkdir(parents=True)
            path = write(component, self.states[component], form, layout, folder / "writing")
            written[component] = folder.name, path.rename(folder / part)
            (folder / "writing").rmdir()
        self.tokenizer(folder / "tokenizer")
        (folder / "model_index.json").write_text("{}")
        return written


@pytest.fixture(scope="module")
def models(base_directory) -> Models:
    """Networks that fit each other. The VAE is the bundled one, as ComfyUI's are eight times smaller than pixels."""
    encoder = COMPONENTS["encoder"].make()
    states = {
        "mmdit": state_of("mmdit", COMPONENTS["mmdit"].make()),
        "vae": state_of("vae", tiny.vae()),
        "encoder": state_of("encoder", encoder),
    }
    return Models(base_directory / "models", states, encoder.tokenizer.save_pretrained)


def by_nodes(client, choices: dict[str, str]) -> list[Tensor]:
    """The latent of one step, and what the VAE makes of it there and back."""
    graph = Graph()
    loaded = {part: graph.add(node, **{name: choices[part]}) for part, (node, name, *_) in LOADERS.items()}
    texts = {"prompt": PROMPT, "negative_prompt": "", "base_size": "256", "width": SIDE, "height": SIDE}
    encoded = graph.add("JoyImageEncodePrompt", encoder=loaded["encoder"], **texts)
    wires = {"positive": encoded, "negative": output(encoded, 1), "latent": output(encoded, 2)}
    sampled = graph.add("JoyImageSampler", model=loaded["mmdit"], **wires, seed=SEED, steps=1, guidance=1.0)
    pixels = graph.add("VAEDecode", samples=sampled, vae=loaded["vae"])
    again = graph.add("VAEEncode", pixels=pixels, vae=loaded["vae"])
    saved = [graph.add("SaveLatent", samples=latent, filename_prefix="loads") for latent in (sampled, again)]
    run = client.run(graph)
    return [latents(run, node)[0] for node in saved]


def by_library(paths: dict[str, Path]) -> list[Tensor]:
    """The same, computed in float32."""
    exact = {"dtype": torch.float32}
    vae = load_vae(paths["vae"], **exact)
    model = JoyImage(load_mmdit(paths["mmdit"], **exact), vae, load_encoder(paths["encoder"], **exact))
    sizes = {"size": (SIDE, SIDE), "base_size": 256}
    latent = model.generate(PROMPT, **sizes, steps=1, guidance_scale=1.0, seed=SEED, output="latent")
    return [latent, vae.encode(vae.decode(latent).squeeze(2))]


made_by_library: dict[str, list[Tensor]] = {}  # by format: the layout changes no weight


@pytest.mark.parametrize(("layout", "form"), sorted({*IN_LAYOUTS, *IN_FORMATS}))
def test_nodes_make_what_the_library_makes(client, models, layout, form):
    if form.startswith("int8") and not int8_is_exact():
        pytest.skip(NO_VNNI)
    written = models.write(layout, form)
    found = by_nodes(client, {part: choice for part, (choice, _) in written.items()})
    if form not in made_by_library:
        made_by_library[form] = by_library({part: path for part, (_, path) in written.items()})
    bound = next((bound for start, bound in ROUNDED.items() if form.startswith(start)), EXACT)
    assert error(found, made_by_library[form]) <= bound


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_refused_in_the_same_words(client, models, name):
    row = REFUSED[name]
    node, field, place, _ = LOADERS[row.component]
    folder = models.root / place / re.sub(r"\W+", "_", name)
    folder.mkdir(parents=True)
    path = row.write(folder)
    path = path if path.suffix in LISTED else path.rename(path.with_suffix(LISTED[0]))
    graph = Graph()
    graph.add("PreviewAny", source=graph.add(node, **{field: path.relative_to(models.root / place).as_posix()}))
    with pytest.raises(Failed) as failed:
        client.run(graph)
    first = str(failed.value).split("\n", 1)[0]
    assert re.search(row.message, first) and path.name in first
