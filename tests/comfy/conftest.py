"""A real ComfyUI server with the pack linked in, on a base directory of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edits import SIZE
from PIL import Image
from safetensors.torch import save_file
from unrun import NO_COMFYUI

from joyimage import JoyImage
from tools import server
from tools.client import RUN_SECONDS
from tools.photograph import photograph


@pytest.fixture(scope="session")
def comfyui() -> server.Installation:
    found = server.find_comfyui()
    if found is None:
        pytest.skip(NO_COMFYUI)
    return found


@pytest.fixture(scope="session")
def trains(comfyui) -> bool:
    """Whether ComfyUI's Python has what training needs."""
    return not subprocess.run([comfyui.python, "-c", "import peft, accelerate"], capture_output=True).returncode


@pytest.fixture(scope="session")
def make_base(comfyui, tmp_path_factory):
    """Makes what a server uses for its models, inputs and outputs, with the pack linked in."""
    return lambda: server.make_base(tmp_path_factory.mktemp("comfyui"))


@pytest.fixture(scope="session")
def base_directory(make_base) -> Path:
    return make_base()


@pytest.fixture(scope="session")
def serve(comfyui):
    """Starts a server on a base directory, on the CPU, and gives a client of it; it ends with the `with` statement."""
    return partial(server.serve, comfyui)


@pytest.fixture(scope="session")
def client(serve, base_directory):
    """A client of a server that runs until the tests end."""
    with serve(base_directory) as client:
        yield client


@pytest.fixture(scope="session")
def library() -> JoyImage:
    return JoyImage.load("tiny", device="cpu")


@pytest.fixture(scope="session")
def photo(base_directory):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    picture = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    picture.save(base_directory / "input" / "photo.png")
    return picture


@pytest.fixture(scope="module")
def lora(base_directory, library) -> Iterator[str]:
    """The name of a LoRA file for one layer."""
    key = "double_blocks.1.attn.img_attn_qkv"
    out_size, in_size = library.mmdit.get_submodule(key).weight.shape
    generator = torch.Generator().manual_seed(0)
    factors = {"lora_A": (4, in_size), "lora_B": (out_size, 4)}
    state = {
        f"diffusion_model.{key}.{name}.weight": torch.randn(shape, generator=generator)
        for name, shape in factors.items()
    }
    file = base_directory / "models" / "loras" / "test.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(state, file)
    yield file.name
    file.unlink()  # other tests want the folder empty


@pytest.fixture(scope="session")
def pictures(client) -> dict[str, Image.Image]:
    """Pictures of three sizes, by the names under which the server has them."""
    whole = photograph()
    made = {"wide.png": whole.resize((300, 200)), "tall.png": whole.rotate(90).resize((120, 330))}
    made["twin.png"] = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((300, 200))
    for name, picture in made.items():
        picture.save(client.base / "input" / name)
    return made


@pytest.fixture(scope="session")
def probes(comfyui) -> dict[str, tuple[Any, str | None]]:
    """What `probes.py` found in ComfyUI's Python, with the pack imported as ComfyUI does."""
    command = [comfyui.python, str(Path(__file__).with_name("probes.py")), str(comfyui.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * RUN_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def probe(probes):
    """The result of one of the probes by name."""

    def result(name: str) -> Any:
        value, error = probes[name]
        assert error is None, error
        return value

    return result
