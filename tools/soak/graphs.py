"""The kinds of graphs that a soak mixes, on the bundled model and its example scenes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from joyimage import tiny

from ..client import TINY, Graph, output
from ..comfyui import PACK

EXAMPLES = PACK / "web" / "examples"
SCENES: list[dict] = json.loads((EXAMPLES / "scenes.json").read_text(encoding="utf-8"))
LORA, LORA_RANK = "soak.safetensors", 4
SIDE = 64  # of a scene, in pixels
SOLVERS = ("euler", "heun", "unipc", "dpmpp_2m")
VIEWS = ("left", "right", "front", "rear")
SAVED = {"filename_prefix": "soak"}


def write_inputs(base: Path) -> None:
    """Put the scenes and a LoRA where a server with this base directory looks for them."""
    for scene in SCENES:
        shutil.copy(EXAMPLES / scene["file"], base / "input")
    factors = {}
    for name, weight in tiny.mmdit().state_dict().items():
        if name.endswith("img_attn_qkv.weight"):
            rows, columns = weight.shape
            layer = f"diffusion_model.{name.removesuffix('.weight')}"
            factors[f"{layer}.lora_A.weight"] = torch.randn(LORA_RANK, columns) / columns**0.5
            factors[f"{layer}.lora_B.weight"] = torch.randn(rows, LORA_RANK) / 10
    (base / "models" / "loras").mkdir()
    save_file(factors, base / "models" / "loras" / LORA)


@dataclass
class Draft:
    """A graph in the making: a scene, and a source of chance for what varies."""

    chance: random.Random

    def __post_init__(self) -> None:
        self.graph = Graph()
        self.scene = self.chance.choice(SCENES)
        self.steps = self.chance.randint(2, 6)

    def add(self, class_type: str, **inputs) -> list:
        return self.graph.add(class_type, **inputs)

    def seed(self) -> int:
        return self.chance.randrange(2**63)

    def model(self) -> list:
        return self.add("JoyImageLoadMMDiT", model=TINY)

    def encoder(self) -> list:
        return self.add("JoyImageLoadEncoder", encoder=TINY)

    def vae(self) -> list:
        return self.add("JoyImageLoadVAE", vae=TINY)

    def picture(self, scene: dict | None = None) -> list:
        return self.add("LoadImage", image=(scene or self.scene)["file"])

    def encode(self, prompt: str | list, *images: list, **more) -> list:
        """The encoded prompt, with the VAE where there are images."""
        given = {f"images.image{i}": image for i, image in enumerate(images)}
        if images:
            given["vae"] = self.vae()
        texts = {"prompt": prompt, "negative_prompt": "", "base_size": "auto"}
        return self.add("JoyImageEncodePrompt", encoder=self.encoder(), **texts, **given, **more)

    def sample(self, encoded: list, **inputs) -> list:
        wires = {"model": self.model(), "positive": encoded, "negative": output(encoded, 1)}
        settings = {"seed": self.seed(), "steps": self.steps, "guidance": self.chance.choice((1.0, 4.0))}
        return self.add("JoyImageSampler", **({**wires, "latent": output(encoded, 2), **settings} | inputs))

    def save(self, latent: list, node: str = "VAEDecode", **inputs) -> None:
        picture = self.add(node, samples=latent, vae=self.vae(), **inputs)
        self.add("SaveImage", images=picture, **SAVED)


def edit(draft: Draft) -> None:
    encoded = draft.encode(draft.scene["removal"], draft.picture())
    draft.save(draft.sample(encoded, solver=draft.chance.choice(SOLVERS)))


def edit_in_one(draft: Draft) -> None:
    loaded = {"model": draft.model(), "encoder": draft.encoder(), "vae": draft.vae()}
    settings = {"base_size": "auto", "seed": draft.seed(), "steps": draft.steps, "guidance": 4.0}
    prompt = draft.scene["recolouring"]
    edited = draft.add("JoyImageEdit", **loaded, image1=draft.picture(), prompt=prompt, **settings)
    draft.add("SaveImage", images=edited, **SAVED)


def two_references(draft: Draft) -> None:
    other = draft.chance.choice(SCENES)
    prompt = f"Add the {other['object']} of image 1 to image 2."
    draft.save(draft.sample(draft.encode(prompt, draft.picture(other), draft.picture())))


def text_to_image(draft: Draft) -> None:
    size = {"width": SIDE, "height": SIDE, "batch_size": draft.chance.randint(1, 3)}
    draft.save(draft.sample(draft.encode(draft.scene["description"], **size)))


def ask(draft: Draft) -> None:
    question = {"question": draft.scene["question"], "seed": draft.chance.randrange(2**31)}
    image = {"images.image0": draft.picture()}
    text = draft.add("JoyImageAsk", encoder=draft.encoder(), **question, **image)
    draft.add("PreviewAny", source=text)


def locate_and_move(draft: Draft) -> None:
    image = draft.picture()
    found = draft.add("JoyImageLocate", encoder=draft.encoder(), image=image, object=draft.scene["object"])
    moved = draft.add("JoyImageMoveObject", image=image, object=draft.scene["object"], bbox=found)
    draft.save(draft.sample(draft.encode(output(moved, 1), moved)))


def rotate(draft: Draft) -> None:
    car = {"object": draft.scene["car"], "view": draft.chance.choice(VIEWS)}
    said = draft.add("JoyImageRotateObject", **car)
    draft.save(draft.sample(draft.encode(said, draft.picture())))


def camera(draft: Draft) -> None:
    angles = {"yaw": float(draft.chance.randint(-180, 180)), "pitch": 0.0, "zoom": "unchanged"}
    said = draft.add("JoyImageCamera", **angles)
    draft.save(draft.sample(draft.encode(said, draft.picture())))


def orbit(draft: Draft) -> None:
    path = {"yaw_start": 0.0, "yaw_end": 360.0, "views": 3, "pitch": 0.0, "zoom": "unchanged"}
    said = draft.add("JoyImageOrbit", **path)
    draft.save(draft.sample(draft.encode(said, draft.picture())))


def inpaint(draft: Draft) -> None:
    image, box = draft.picture(), {"x": 0.25, "y": 0.25, "w": 0.5, "h": 0.5}
    drawn = draft.add("JoyImageDrawBoxes", image=image, boxes=json.dumps([box]))
    start = draft.add("VAEEncode", pixels=image, vae=draft.vae())
    masked = draft.add("SetLatentNoiseMask", samples=start, mask=output(drawn, 2))
    draft.save(draft.sample(draft.encode(draft.scene["removal"], image), latent=masked))


def rewrite(draft: Draft) -> None:
    """By the encoder, as no server is named."""
    image, short = draft.picture(), draft.scene["removal"]
    inputs = {"prompt": short, "images.image0": image}
    said = draft.add("JoyImageRewritePrompt", encoder=draft.encoder(), **inputs)
    draft.save(draft.sample(draft.encode(said, image)))


def ksampler(draft: Draft) -> None:
    encoded = draft.encode(draft.scene["description"], width=SIDE, height=SIDE)
    wires = {"positive": encoded, "negative": output(encoded, 1), "latent_image": output(encoded, 2)}
    chosen = {"sampler_name": draft.chance.choice(("euler", "dpmpp_2m")), "scheduler": "simple", "denoise": 1.0}
    settings = {"seed": draft.seed(), "steps": draft.steps, "cfg": 4.0}
    draft.save(draft.add("KSampler", model=draft.model(), **wires, **chosen, **settings))


def lora(draft: Draft) -> None:
    strength = draft.chance.choice((0.5, 1.0))
    patched = draft.add("LoraLoaderModelOnly", model=draft.model(), lora_name=LORA, strength_model=strength)
    draft.save(draft.sample(draft.encode(draft.scene["recolouring"], draft.picture()), model=patched))


def tiled_decode(draft: Draft) -> None:
    encoded = draft.encode(draft.scene["description"], width=2 * SIDE, height=2 * SIDE)
    tiles = {"tile_size": SIDE, "overlap": 0, "temporal_size": 64, "temporal_overlap": 8}
    draft.save(draft.sample(encoded), "VAEDecodeTiled", **tiles)


def refused(draft: Draft) -> None:
    """What the server turns down before it runs anything."""
    draft.save(draft.sample(draft.encode(" ", draft.picture())))


def failing(draft: Draft) -> None:
    """What a node turns down when it runs: seven images for one edit."""
    draft.save(
        draft.sample(draft.encode("Add a cube.", draft.add("RepeatImageBatch", image=draft.picture(), amount=7)))
    )


KINDS: dict[str, Callable[[Draft], None]] = {
    build.__name__: build
    for build in (
        edit, edit_in_one, two_references, text_to_image, ask, locate_and_move, rotate, camera, orbit, inpaint,
        rewrite, ksampler, lora, tiled_decode, refused, failing,
    )
}  # fmt: skip
WRONG = ("refused", "failing")  # kinds whose answer is that they cannot be done
# Kinds long enough to be interrupted in the middle.
LONG = ("edit", "edit_in_one", "two_references", "text_to_image", "orbit", "ksampler", "lora", "tiled_decode")


def drafted(kind: str, chance: random.Random) -> Graph:
    draft = Draft(chance)
    KINDS[kind](draft)
    return draft.graph
