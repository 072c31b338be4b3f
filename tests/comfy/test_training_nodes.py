"""Training Set and Train LoRA in a running ComfyUI: what comes out, what stays as it is, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edits import normalised
from pieces import NO_EXTRA
from PIL import Image, ImageOps
from safetensors.torch import load_file

from joyimage.images import load
from joyimage.training import logs
from joyimage.training.caching import cache
from joyimage.training.checking import check
from joyimage.training.examples import Example
from joyimage.training.plot import HEIGHT, WIDTH
from joyimage.training.settings import Training as Settings
from joyimage.training.trainer import train
from tools.client import RUN_SECONDS, TINY, Failed, Graph, Rejected, output
from tools.tiny import examples

CAPTION = "Invert the picture."
SCENES = [load(examples.FOLDER / f"scene-{number:02}.png") for number in (1, 2, 3)]
STEPS, MANY = 3, 40
FAST = {"objective": "edit", "learning_rate": 0.02, "rank": 4, "batch_size": 2, "seed": 0, "sample_every": 0}
EXACT = {"warm_up": 1, "save_every": 0}


@pytest.fixture(scope="module", autouse=True)
def extra(trains) -> None:
    if not trains:
        pytest.skip(NO_EXTRA)


@pytest.fixture(scope="module", autouse=True)
def inputs(client) -> None:
    for number, scene in enumerate(SCENES):
        scene.save(client.base / "input" / f"control{number}.png")
        ImageOps.invert(scene).save(client.base / "input" / f"target{number}.png")


class Training(Graph):
    """Loaders, a set of inverted scenes, and what is trained on it."""

    def __init__(self, captions: str = CAPTION, count: int = len(SCENES), **options):
        super().__init__()
        self.model = self.add("JoyImageLoadMMDiT", model=TINY)
        self.vae = self.add("JoyImageLoadVAE", vae=TINY)
        self.encoder = self.add("JoyImageLoadEncoder", encoder=TINY)
        self.pictures = self.batch("control", len(SCENES))
        given = {"targets": self.batch("target", count), "images.image0": self.pictures, "captions": captions}
        self.set = self.add(
            "JoyImageTrainingSet", encoder=self.encoder, vae=self.vae, base_size="auto",
            **{name: value for name, value in {**given, **options}.items() if value is not None},
        )  # fmt: skip

    def batch(self, name: str, count: int) -> list:
        images = [self.add("LoadImage", image=f"{name}{number}.png") for number in range(count)]
        together = images[0]
        for image in images[1:]:
            together = self.add("ImageBatch", image1=together, image2=image)
        return together

    def train(self, steps: int = STEPS, model: list | None = None, **options) -> list:
        values = {**FAST, **EXACT, "steps": steps, **options}
        return self.add("JoyImageTrainLora", model=model or self.model, set=self.set, **values)

    def sample(self, model: list) -> list:
        picture = self.add("LoadImage", image="control0.png")
        encoded = self.add(
            "JoyImageEncodePrompt", encoder=self.encoder, vae=self.vae, prompt=CAPTION, negative_prompt="",
            base_size="auto", **{"images.image0": picture},
        )  # fmt: skip
        sampled = self.add(
            "JoyImageSampler", model=model, positive=encoded, latent=output(encoded, 2), seed=7, steps=2, guidance=1.0
        )
        return self.add("SaveLatent", samples=sampled, filename_prefix="trained")


def losses_of(run, node: list) -> list[float]:
    """Those of a training, as its log has them."""
    folder = Path(run.outputs[node[0]]["text"][0].splitlines()[-1]).parent
    return [line["loss"] for line in logs.read(folder) if "loss" in line]


@pytest.fixture(scope="module")
def probed(comfyui) -> dict[str, Any]:
    """What `training_probe.py` found in ComfyUI's Python."""
    command = [comfyui.python, str(Path(__file__).with_name("training_probe.py")), str(comfyui.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * RUN_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_trained_lora_works_alike_in_comfyui_and_in_the_library(client, library):
    graph = Training()
    before = graph.sample(graph.model)
    trained = graph.train()
    graph.add("SaveLoRA", lora=trained, prefix="loras/trained", steps=output(trained, 3))
    after = [
        graph.sample(graph.add("LoraModelLoader", model=graph.model, lora=trained, strength_model=1.0, bypass=bypass))
        for bypass in (False, True)
    ]
    run = client.run(graph)
    plain, patched, bypassed = map(run.latent, (before, *after))
    assert (patched - plain).abs().max() > 0.05
    torch.testing.assert_close(bypassed, patched, atol=1e-4, rtol=0)
    (saved,) = (client.base / "output" / "loras").glob("trained_3_steps_*.safetensors")
    own = Path(run.outputs[trained[0]]["text"][0].splitlines()[-1])
    for path in (saved, own):
        library.set_loras((str(path), 1.0))
        try:
            wanted = library.edit(SCENES[0], CAPTION, steps=2, seed=7, guidance_scale=1.0, output="latent")
        finally:
            library.set_loras()
        torch.testing.assert_close(normalised(patched), wanted, atol=1e-4, rtol=0)
    saved.unlink()  # loaders offer it to the tests that come after


def test_a_run_is_the_librarys(client, library, tmp_path):
    """The curve of the same run by the library alone, in another version of torch."""
    graph = Training()
    node = graph.train()
    losses = losses_of(client.run(graph), node)
    found = [Example(ImageOps.invert(scene), CAPTION, (scene,)) for scene in SCENES]
    samples = cache(library, check(found, 64).examples, tmp_path / "cache", base_size=64)
    names = {"objective", "learning_rate", "rank", "batch_size", "seed", "sample_every", "warm_up", "save_every"}
    own = {name: value for name, value in {**FAST, **EXACT}.items() if name in names}
    train(library.mmdit, samples, Settings(steps=STEPS, **own), tmp_path / "run")
    wanted = [line["loss"] for line in logs.read(tmp_path / "run")]
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)


def test_a_folder_is_the_same_set_as_its_pictures(client):
    base = client.base / "input" / "pairs"
    for name, change in (("targets", ImageOps.invert), ("images", ImageOps.exif_transpose)):
        (base / name).mkdir(parents=True)
        for number, scene in enumerate(SCENES):
            change(scene).save(base / name / f"{number}.png")
    (base / "targets" / "0.txt").write_text(CAPTION)  # the others take the node's
    (base / "targets" / "9.png").write_bytes(b"no picture")
    listed, folder = Training(), Training(folder="pairs/targets", image_folders="pairs/images", targets=None)
    runs = [(client.run(graph), node) for graph in (listed, folder) for node in [graph.train()]]
    assert losses_of(*runs[0]) == losses_of(*runs[1])
    [note] = runs[1][0].outputs[folder.set[0]]["text"]
    assert "3 of 4 examples can be used" in note and "9.png" in note


def test_interrupted_it_goes_on_to_the_same_lora(client):
    graph = Training()
    node = graph.train(steps=MANY, seed=3)
    asked = []

    def interrupt(where: str, value: int) -> None:
        if where == node[0] and value >= 1 and not asked:
            asked.append(value)
            client.post("/interrupt", {})

    assert client.run(graph, interrupt).interrupted
    run = client.run(graph)
    first, *_, last = run.outputs[node[0]]["text"][0].splitlines()
    assert int(first.removeprefix("went on from step ")) in range(1, MANY)
    resumed = load_file(last)
    shutil.rmtree(Path(last).parent)
    whole = Training()
    node = whole.train(steps=MANY, seed=3, save_every=50)  # which leaves the curve as it is
    again = client.run(whole).outputs[node[0]]["text"][0].splitlines()
    assert "went on" not in again[0]
    fresh = load_file(again[-1])
    assert fresh.keys() == resumed.keys() and all(torch.equal(fresh[key], resumed[key]) for key in fresh)


def test_what_it_shows_while_it_runs_and_afterwards(client):
    graph = Training()
    node = graph.train(seed=4, sample_every=2)
    graph.add("SaveImage", images=output(node, 1), filename_prefix="sheet")
    graph.add("PreviewAny", source=output(node, 2))
    run = client.run(graph)
    assert f"{STEPS} steps with 3 examples" in run.texts[node[0]]
    first, *_, last = run.shown[node[0]]
    assert [len(each["images"]) for each in (first, last)] == [1, 2] and first["images"] == last["images"][:1]
    assert first["text"][0].startswith("step 1 of 3, loss ")
    assert not run.previews  # which the page would go on showing beside them
    assert Image.open(run.files(node)[0]).size == (WIDTH, HEIGHT)
    sheet = Image.open(next(client.base.glob("output/sheet*.png")))
    (made,) = {path.parent.parent for path in client.base.glob("output/joyimage/training/*/samples/*.png")}
    assert sheet.size == Image.open(made / "samples" / "step-0000002.png").size
    assert [line["loss"] for line in logs.read(made) if "loss" in line]


def test_guidance_is_learned_from_pictures_that_the_model_makes(client):
    graph = Training()
    node = graph.train(objective="guidance", teacher_steps=2, guidance_scale=3.0, seed=5)
    losses = losses_of(client.run(graph), node)
    assert len(losses) == STEPS and max(losses) < 1  # between velocities, where an edit's are from noise


@pytest.mark.parametrize("adapter", ["rslora", "dora"])
def test_other_adapters_do_the_same_by_both_of_core_s_ways(client, adapter):
    graph = Training()
    trained = graph.train(adapter=adapter, seed=6)
    loaded = graph.add("LoraModelLoader", model=graph.model, lora=trained, strength_model=1.0, bypass=False)
    saved = graph.sample(loaded), graph.sample(graph.model)
    after, plain = map(client.run(graph).latent, saved)
    assert after.isfinite().all() and (after - plain).abs().max() > 0.01


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"count": 2}, Failed, "2 targets, but 3 of image 1"),
        ({"captions": "one\ntwo"}, Failed, "3 targets, but 2 captions"),
        ({"captions": ""}, Failed, "0 captions"),
        ({"targets": None}, Failed, "connect targets"),
        ({"folder": "."}, Failed, "both a folder and targets"),
        ({"loss": "mask"}, Failed, "nothing to train on"),
        ({"folder": "nowhere"}, Rejected, "nowhere does not exist; give a whole path"),  # before the run
        ({"image_folders": "."}, Rejected, "give the folder of the targets as well"),
    ],
)
def test_sets_that_cannot_be_are_refused(client, options, error, message):
    graph = Training(**options)
    graph.train()
    with pytest.raises(error, match=message):
        client.run(graph)


def test_steps_that_do_not_fit_are_refused_before_the_run(client):
    graph = Training()
    graph.train(warm_up=2, cool_down=2)
    with pytest.raises(Rejected, match="do not fit into 3 steps"):
        client.run(graph)


@pytest.mark.parametrize("kind", ["plain", "patched", "offloaded", "host's int8", "our int8", "fp8"])
def test_gradients_are_the_librarys(probed, kind):
    """Whatever the MODEL keeps its weights in, and wherever."""
    velocity, gradient = probed["twins"][kind]
    assert velocity < 1e-5 and gradient < 1e-5


@pytest.mark.parametrize("kind", ["plain", "offloaded", "host's int8", "our int8"])
def test_the_model_stays_as_it_is_to_the_bit(probed, kind):
    """After a training, and after one that was interrupted."""
    assert probed["trained"][kind] is True


def test_comfyuis_own_class_does_the_same_with_it(probed):
    apart, moved = probed["trained"]["core"]
    assert apart < 1e-4 and moved > 0.05


def test_another_network_is_refused(probed):
    assert probed["another"].endswith("connect Load MMDiT (JoyImage)")


def test_the_pack_loads_without_the_extra_and_says_what_to_install(probed):
    assert probed["without_extra"]["loaded"] == []
    assert "-m pip install peft accelerate` and start ComfyUI again" in probed["without_extra"]["verdict"]
