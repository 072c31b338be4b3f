"""A LoRA as training writes it, in ComfyUI: on our MODEL by core's loader and ours, and on core's own class."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch
from test_core_loaders import draw, network
from test_load_lora import Picture, expected, folder, normalised  # noqa: F401 - a fixture

from joyimage import JoyImage, lora
from joyimage.mmdit import MMDiT
from joyimage.training.adapter import Adapter
from joyimage.training.files import LoraFile
from joyimage.training.settings import ADAPTERS, Training
from tools.client import RUN_SECONDS

# Core's loader divides DoRA's magnitudes by the norms of the weight as it was, not as it is with the update.
CORES_OWN = tuple(kind for kind in ADAPTERS if kind != "dora")


def trained(mmdit: MMDiT, kind: str, path: Path) -> Path:
    """A file of an adapter that does something."""
    settings = Training(adapter=kind, rank=4, alpha=3.0)
    adapter = Adapter(mmdit, settings)
    for i, (name, p) in enumerate(adapter.tensors().items()):
        with torch.no_grad():
            p.mul_(1.1) if "magnitude" in name else p.copy_(0.05 * draw(*p.shape, seed=i))
    updates = adapter.updates()
    adapter.remove()
    return LoraFile(updates, settings, {"base": "drawn"}).save(path)


def test_our_model_takes_it_from_cores_loader_and_from_ours(client, library, folder):  # noqa: F811
    picture = Picture()
    plain = picture.sample(picture.model)
    saved = {}
    for kind in ADAPTERS:
        path = trained(JoyImage.load("tiny").mmdit, kind, folder / f"trained-{kind}.safetensors")
        loaded = [picture.load(path.name)]
        if kind in CORES_OWN:
            core = {"model": picture.model, "lora_name": path.name, "strength_model": 1.0}
            loaded.append(picture.add("LoraLoaderModelOnly", **core))
        saved[kind] = path, *map(picture.sample, loaded)
    run = client.run(picture)
    for kind, (path, *nodes) in saved.items():
        wanted = expected(library, (path, 1.0))
        for node in nodes:
            torch.testing.assert_close(normalised(run.latent(node)), wanted, atol=1e-4, rtol=0, msg=kind)
            assert (run.latent(node) - run.latent(plain)).abs().max() > 1e-3


def test_cores_own_class_computes_what_the_library_does(comfyui, tmp_path):
    mmdit = network()
    state = {name: tensor.float().contiguous() for name, tensor in mmdit.state_dict().items()}
    from safetensors.torch import save_file

    save_file(state, tmp_path / "mmdit.safetensors")
    inputs = {
        "latent": draw(1, 16, 1, 8, 6, seed=1), "t": torch.tensor([731.25]), "context": draw(1, 7, 4096, seed=2),
        "references": [draw(1, 16, 1, 4, 10, seed=3)],
    }  # fmt: skip
    torch.save(inputs, tmp_path / "inputs.pt")
    files = [trained(mmdit, kind, tmp_path / f"{kind}.safetensors") for kind in CORES_OWN]
    script = Path(__file__).with_name("core_lora.py")
    paths = map(str, (comfyui.path, tmp_path / "mmdit.safetensors", tmp_path / "inputs.pt", *files))
    done = subprocess.run(
        [comfyui.python, str(script), *paths], capture_output=True, text=True, timeout=5 * RUN_SECONDS
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with torch.inference_mode():
        before = mmdit(*inputs.values())
    for file in files:
        applied = lora.match([mmdit], [(lora.read(file), 1.0)]).apply(torch.float32)
        with torch.inference_mode():
            wanted = mmdit(*inputs.values())
        applied.remove()
        found = torch.load(file.with_suffix(".out.pt"), weights_only=True)
        assert (wanted - before).norm() > 0.01 * before.norm()
        assert (found - wanted).norm() < 1e-4 * wanted.norm(), file.name
