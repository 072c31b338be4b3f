"""What several graphs share: loaders with the files they name, pictures, the way from a prompt to a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from joyimage.inpainting import EDGE

from .build import File, Group, Node, Out

TINY = "tiny (bundled)"
# Room for the pictures on which nodes are set by hand, or which they show.
BY_HAND = {"JoyImageMoveObject": 260, "JoyImageRotateObject": 270, "JoyImageCamera": 490, "JoyImageOrbit": 330}
PICTURE, SCENE, COMPARED, SAVED = 260, 255, 300, 260
NAMES = 500  # wide enough for the published files' names
PREVIEW = 300  # that a sampler shows below itself while it runs, and keeps
STEPS = 40

HUB = "https://huggingface.co"
EDIT, PLUS = f"{HUB}/Comfy-Org/JoyAI-Image-Edit", f"{HUB}/jdopensource/JoyAI-Image-Edit-Plus-ComfyUI"


def published(directory: str, name: str) -> File:
    return File(name, directory, f"{EDIT}/resolve/main/{directory}/{name}")


# The published files, by the loader's inputs. Those of the Plus model have no address of which we are sure.
VAE = published("vae", "wan_2.1_vae.safetensors")
EDIT_FILES = {
    "model": published("diffusion_models", "joyai_image_edit_int8_convrot.safetensors"),
    "encoder": published("text_encoders", "qwen3vl_8b_joyimage_edit_int8_convrot.safetensors"),
    "vae": VAE,
}
PLUS_FILES = {
    "model": File("joyai_image_edit_plus_int8_convrot.safetensors", "diffusion_models"),
    "encoder": File("qwen3vl_8b_joyimage_edit_plus_int8_convrot.safetensors", "text_encoders"),
    "vae": VAE,
}
LOADERS = {"model": "JoyImageLoadMMDiT", "encoder": "JoyImageLoadEncoder", "vae": "JoyImageLoadVAE"}
GIGABYTES = {"model": 16.4, "encoder": 10, "vae": 0.25}
MADE = "The thumbnail was made by the bundled model, on a drawn scene."


def needs(files: Mapping[str, File], source: str) -> str:
    """Three lines on what is to be downloaded, and from where."""
    total = round(sum(GIGABYTES[part] for part in files))
    listed = ", ".join(
        f"{f'[{file.name}]({file.url})' if file.url else file.name} to models/{file.directory}"
        for file in files.values()
    )
    offer = (
        "ComfyUI offers the downloads when this graph is opened and a file is missing."
        if all(file.url for file in files.values())
        else f"Download them from [{source.removeprefix(HUB + '/')}]({source})."
    )
    return f"""\
**Needs** {total} GB of files: {listed}.
{offer} Then press **R**.
Where there is memory for twice as much, take the files with bf16 in place of int8_convrot. {MADE}"""


def models(files: Mapping[str, File] | None = None) -> Group:
    """The three loaders, with published files or, without any, the bundled model."""
    nodes = {part: loader(part, (files or {}).get(part)) for part in LOADERS}
    return Group("Models", nodes, NAMES if files else 400)


def loader(part: str, file: File | None = None) -> Node:
    name, files = (file.name, (file,)) if file else (TINY, ())
    return Node(LOADERS[part], {part: name}, files=files)


def photograph(name: str, title: str = "Image") -> Node:
    return Node("JoyImageLoadImage", {"image": f"example: {name}"}, title, PICTURE)


def scene() -> Node:
    return Node("JoyImageExampleScene", room=SCENE)


def by_hand(kind: str, inputs: Mapping[str, Any] | None = None) -> Node:
    """A node with a view that is set by hand."""
    return Node(kind, inputs or {}, room=BY_HAND[kind])


def encode(prompt: str | Out, images: Sequence[Out] = (), room: int = 60, **inputs: Any) -> Node:
    inputs = {"encoder": Out("encoder"), "prompt": prompt, **inputs}
    if images:
        inputs |= {"vae": Out("vae"), **{f"images.image{i}": image for i, image in enumerate(images)}}
    return Node("JoyImageEncodePrompt", inputs, room=room)


def sample(encoded: str = "encode", steps: int = STEPS, latent: Out | None = None, seed: int | None = None) -> Node:
    """The sampler; a given seed stays from run to run."""
    conditions = {name: Out(encoded, name) for name in ("positive", "negative", "latent")}
    if latent:
        conditions["latent"] = latent
    fixed = {} if seed is None else {"seed": seed}
    return Node(
        "JoyImageSampler",
        {"model": Out("model"), **conditions, "steps": steps, **fixed},
        room=PREVIEW,
        after_run="randomize" if seed is None else "fixed",
    )


def decode(sampler: str = "sampler") -> Node:
    return Node("VAEDecode", {"samples": Out(sampler), "vae": Out("vae")})


def save(decoded: str, prefix: str, room: int = SAVED) -> Node:
    return Node("SaveImage", {"images": Out(decoded), "filename_prefix": f"joyimage/{prefix}"}, room=room)


def compare(before: Out, after: Out) -> Node:
    return Node("JoyImageCompare", {"before": before, "after": after}, room=COMPARED)


def sampling(steps: int = STEPS, seed: int | None = None, latent: Out | None = None) -> Group:
    nodes = {"sampler": sample(steps=steps, seed=seed, latent=latent), "decode": decode()}
    return Group("Sampling", nodes, 320)


def result(prefix: str, before: Out, after: str = "decode") -> Group:
    """The picture as a file, and beside what it was made from."""
    return Group("Result", {"save": save(after, prefix), "compare": compare(before, Out(after))}, 400)


def masked(picture: Out, mask: Out) -> dict[str, Node]:
    """A latent of which only what lies in the mask is made anew."""
    return {
        "original": Node("VAEEncode", {"pixels": picture, "vae": Out("vae")}),
        "masked": Node("SetLatentNoiseMask", {"samples": Out("original"), "mask": mask}),
    }


def soft_edge(mask: Out) -> dict[str, Node]:
    """The mask under the name "edge", softened inwards: outside it stays black, as the library's `soft_edge`."""
    shrink = {"mask": mask, "expand": -EDGE, "tapered_corners": False}
    return {
        "inner": Node("GrowMask", shrink, "Shrink the mask"),
        "shown": Node("MaskToImage", {"mask": Out("inner")}),
        "blurred": Node("ImageBlur", {"image": Out("shown"), "blur_radius": EDGE, "sigma": 1.0}),
        "edge": Node("ImageToMask", {"image": Out("blurred"), "channel": "red"}),
    }


def composite(picture: Out, mask: Out) -> Node:
    """What was made, in the mask alone: all else stays as it was, to the last bit."""
    inputs = {"destination": picture, "source": Out("decode"), "mask": mask}
    return Node("ImageCompositeMasked", inputs)
