"""The graphs that come with the pack, as descriptions. `build` makes files of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .build import Group, Node, Out, Workflow

TINY = "tiny (bundled)"
EXAMPLE = "example.png"  # comes with ComfyUI
PICTURE, SMALL_PICTURE = 260, 220  # room for one
# Room for the pictures on which the spatial nodes are set by hand.
BY_HAND = {"JoyImageMoveObject": 260, "JoyImageRotateObject": 270, "JoyImageCamera": 490, "JoyImageOrbit": 330}
HUB = "https://huggingface.co"
EDIT, PLUS = f"{HUB}/Comfy-Org/JoyAI-Image-Edit", f"{HUB}/jdopensource/JoyAI-Image-Edit-Plus-ComfyUI"
FILE = f"{EDIT}/resolve/main"

VAE_LINE = f"""\
**models/vae** (0.25 GB)
- [wan_2.1_vae.safetensors]({FILE}/vae/wan_2.1_vae.safetensors)"""

ENCODER_LINES = f"""\
**models/text_encoders** (17 GB, or 10 GB)
- [qwen3vl_8b_joyimage_edit_bf16.safetensors]({FILE}/text_encoders/qwen3vl_8b_joyimage_edit_bf16.safetensors)
- or [qwen3vl_8b_joyimage_edit_int8_convrot.safetensors]\
({FILE}/text_encoders/qwen3vl_8b_joyimage_edit_int8_convrot.safetensors)"""

AFTERWARDS = """\
Then press **R** and choose the files in the loaders. Parts that do not fit on the graphics card wait in main memory."""

TINY_LINES = """\
The loaders stand on **tiny (bundled)**, so that this graph runs at once on any computer. That small model knows \
pictures of coloured solids alone: what it makes of a photograph is of no use."""

EDIT_FILES = f"""\
### For real pictures
{TINY_LINES} Download from [Comfy-Org/JoyAI-Image-Edit]({EDIT}):

**models/diffusion_models** (32.5 GB, or 16.4 GB)
- [joyai_image_edit_bf16.safetensors]({FILE}/diffusion_models/joyai_image_edit_bf16.safetensors)
- or [joyai_image_edit_int8_convrot.safetensors]({FILE}/diffusion_models/joyai_image_edit_int8_convrot.safetensors)

{ENCODER_LINES}

{VAE_LINE}

{AFTERWARDS}"""

PLUS_FILES = f"""\
### For real pictures
{TINY_LINES} Working from several images takes the **Plus** model. Download from \
[jdopensource/JoyAI-Image-Edit-Plus-ComfyUI]({PLUS}):

**models/diffusion_models** (32.5 GB, or 16.4 GB)
- joyai_image_edit_plus_bf16.safetensors
- or joyai_image_edit_plus_int8_convrot.safetensors

**models/text_encoders** (17 GB, or 10 GB)
- qwen3vl_8b_joyimage_edit_plus_bf16.safetensors
- or qwen3vl_8b_joyimage_edit_plus_int8_convrot.safetensors

{VAE_LINE}

{AFTERWARDS}"""

ENCODER_FILES = f"""\
### For real answers
The loader stands on **tiny (bundled)**, so that this graph runs at once on any computer. That small \
model knows pictures of coloured solids alone. Download from [Comfy-Org/JoyAI-Image-Edit]({EDIT}):

{ENCODER_LINES}

Then press **R** and choose the file in the loader."""


def models() -> Group:
    return Group(
        "Models",
        {
            "model": Node("JoyImageLoadMMDiT", {"model": TINY}),
            "encoder": Node("JoyImageLoadEncoder", {"encoder": TINY}),
            "vae": Node("JoyImageLoadVAE", {"vae": TINY}),
        },
        width=400,
    )


def picture(title: str = "Image", room: int = PICTURE) -> Node:
    return Node("LoadImage", {"image": EXAMPLE}, title, room)


def encode(prompt: str | Out, images: Sequence[Out] = (), room: int = 60) -> Node:
    inputs = {"encoder": Out("encoder"), "prompt": prompt}
    if images:
        inputs |= {"vae": Out("vae"), **{f"images.image{i}": image for i, image in enumerate(images)}}
    return Node("JoyImageEncodePrompt", inputs, room=room)


def sample(encoded: str = "encode", steps: int = 40) -> Node:
    conditions = {name: Out(encoded, name) for name in ("positive", "negative", "latent")}
    return Node("JoyImageSampler", {"model": Out("model"), **conditions, "steps": steps})


def decode(sampler: str) -> Node:
    return Node("VAEDecode", {"samples": Out(sampler), "vae": Out("vae")})


def save(decoded: str, prefix: str, room: int) -> Node:
    return Node("SaveImage", {"images": Out(decoded), "filename_prefix": f"joyimage/{prefix}"}, room=room)


def result(prefix: str, steps: int = 40) -> Group:
    nodes = {
        "sampler": sample(steps=steps),
        "decode": decode("sampler"),
        "save": save("decode", prefix, room=PICTURE + 100),
    }
    return Group("Result", nodes, width=400)


def edit() -> Workflow:
    note = f"""\
Changes a picture as you say. Choose a picture, write what to change, and press **Run**.

The result has about the area of the base size squared and the picture's own shape. With `auto` the base size is the \
model's own: 1024, or 64 with the tiny model, which makes squares alone. The negative prompt may stay empty.

{EDIT_FILES}"""
    prompt = "Make the dress red, and put a rainbow into the sky."
    nodes = {"image": picture(), "encode": encode(prompt, [Out("image")])}
    return Workflow("Edit an image", note, [models(), Group("Image and prompt", nodes, 400), result("edit")])


def edit_three() -> Workflow:
    note = f"""\
Makes one picture from three. Choose the pictures and say in the prompt what to take from each: a person, a piece of \
clothing, a place.

Up to six can be connected; sizes may differ. The last one sets the shape of the result.

{PLUS_FILES}"""
    prompt = (
        "The person from the first image, wearing the clothes from the second image, stands in the landscape of the "
        "third image."
    )
    titles = ("First image", "Second image", "Third image")
    pictures = {title: picture(title, SMALL_PICTURE) for title in titles}
    groups = [
        models(),
        Group("Images", pictures, 300),
        Group("Prompt", {"encode": encode(prompt, list(map(Out, pictures)))}, 400),
        result("edit_three"),
    ]
    return Workflow("Edit with three images", note, groups)


POSTER = """\
A hand-painted poster for a village fair in early summer, seen straight from the front. The headline in large cream \
letters reads "SUMMER FAIR", and below it in smaller letters "Saturday, 14 June, from noon till late". In the middle a \
round wooden table stands under an old apple tree: on it a blue enamel jug with daisies, a loaf of dark bread on a \
board, three jars of honey with labels that read "LIME", "CLOVER" and "HEATH", and a sleeping tabby cat that leaves \
little room for anything else. Behind the table, strings of paper lanterns lead to a striped tent where a brass band \
is playing; children chase a brown dog across the grass. Low hills and two white clouds close the picture at the top. \
Warm afternoon light from the left, soft shadows, visible brush strokes, a palette of cream, brick red and leaf green. \
Along the lower edge a brick-red ribbon carries the words "Bring a chair and an appetite"."""


def text_to_image() -> Workflow:
    note = f"""\
Makes a picture from text alone: no image is connected to Encode Prompt, and so it needs no VAE.

The model reads long descriptions, up to 2048 tokens or some 1500 words. What is to be written in the picture stands \
in double quotes. For another shape than a square, give width and height: they are among the advanced inputs of \
Encode Prompt.

{EDIT_FILES}"""
    groups = [models(), Group("Prompt", {"encode": encode(POSTER, room=360)}, 440), result("text_to_image")]
    return Workflow("Text to image", note, groups)


def by_hand(type: str, inputs: Mapping[str, Any]) -> Node:
    return Node(type, inputs, room=BY_HAND[type])


def spatial(name: str, note: str, group: str, nodes: dict[str, Node], image: Out, steps: int = 40) -> Workflow:
    """An edit whose prompt comes from the node called "instruction"."""
    columns = [
        models(),
        Group(group, nodes, 340),
        Group("Prompt", {"encode": encode(Out("instruction", "instruction"), [image])}, 340),
        result(name.lower().replace(" ", "_"), steps),
    ]
    return Workflow(name, f"{note}\n\n{EDIT_FILES}", columns)


def move() -> Workflow:
    note = """\
Moves an object to where the red box is. Say which object in a few words, and draw the box on the picture.

In place of the box you can paint the spot: right-click the image, **Open in Mask Editor**, and connect the image's \
MASK to Move Object."""
    box = '{"x": 0.04, "y": 0.55, "w": 0.28, "h": 0.42}'
    inputs = {"image": Out("image"), "object": "girl in the pink dress", "box": box}
    nodes = {"image": picture(room=SMALL_PICTURE), "instruction": by_hand("JoyImageMoveObject", inputs)}
    return spatial("Move an object", note, "Image and box", nodes, Out("instruction", "image"))


def rotate() -> Workflow:
    note = """\
Turns an object until you see the side you choose. Everything else stays in its place."""
    inputs = {"object": "girl in the pink dress", "view": "rear"}
    nodes = {"image": picture(room=SMALL_PICTURE), "instruction": by_hand("JoyImageRotateObject", inputs)}
    return spatial("Rotate an object", note, "Image and view", nodes, Out("image"))


def camera() -> Workflow:
    note = """\
Looks at the same scene from somewhere else. Yaw goes around it, pitch over or under it, zoom closer or further away."""
    inputs = {"yaw": 45, "pitch": 15, "zoom": "unchanged"}
    nodes = {"image": picture(room=SMALL_PICTURE), "instruction": by_hand("JoyImageCamera", inputs)}
    return spatial("Move the camera", note, "Image and camera", nodes, Out("image"))


def orbit() -> Workflow:
    note = """\
Eight views around a scene in one run. Camera Orbit gives a list of instructions; Encode Prompt reads the picture once \
for all of them, and everything after it runs once per view.

Steps are set to 20, enough for a draft: eight views take the time of eight edits."""
    inputs = {"yaw_start": 0, "yaw_end": 360, "views": 8, "pitch": 0, "zoom": "unchanged"}
    nodes = {"image": picture(room=SMALL_PICTURE), "instruction": by_hand("JoyImageOrbit", inputs)}
    return spatial("Orbit in eight views", note, "Image and orbit", nodes, Out("image"), steps=20)


def ask() -> Workflow:
    note = f"""\
Answers a question about a picture; the answer appears on the node. Further images can be connected, up to six. \
Left empty, the question asks for a description.

Temperature, length and seed are among the advanced inputs of Ask. Temperature 0 always gives the likeliest answer.

{ENCODER_FILES}"""
    inputs = {
        "encoder": Out("encoder"),
        "images.image0": Out("image"),
        "question": "What is in this picture, and where is it? Name colours.",
    }
    groups = [
        Group("Model", {"encoder": Node("JoyImageLoadEncoder", {"encoder": TINY})}, 400),
        Group("Image", {"image": picture()}, 320),
        Group("Question and answer", {"ask": Node("JoyImageAsk", inputs, room=220)}, 440),
    ]
    return Workflow("Ask about an image", note, groups)


def locate_and_move() -> Workflow:
    note = """\
Moves an object with no box drawn by hand: Locate finds the place that you describe, and Move Object draws its red box \
there.

Describe the place as you would to a person: "the empty table next to the cup". Locate shows on its face the box it \
has found. The tiny model knows coloured solids alone and finds nothing of use here."""
    place = {"encoder": Out("encoder"), "image": Out("image"), "object": "the empty meadow to the left of the girl"}
    inputs = {"image": Out("image"), "object": "girl in the pink dress", "bbox": Out("locate", "bbox")}
    nodes = {
        "image": picture(room=SMALL_PICTURE),
        "locate": Node("JoyImageLocate", place, title="Locate the place (JoyImage)", room=60),
        "instruction": by_hand("JoyImageMoveObject", inputs),
    }
    return spatial("Locate and move an object", note, "Image and place", nodes, Out("instruction", "image"))


def rewrite_and_edit() -> Workflow:
    note = f"""\
Makes a short wish clear and specific before it is carried out. The rewritten prompt appears on the node; if rewriting \
fails, the prompt stays as it is and the node says why.

Words that are to be written in the picture stand in double quotes.

{EDIT_FILES}"""
    inputs = {"encoder": Out("encoder"), "images.image0": Out("image"), "prompt": "make it look like evening"}
    nodes = {"image": picture(), "rewrite": Node("JoyImageRewritePrompt", inputs, room=140)}
    groups = [
        models(),
        Group("Image and wish", nodes, 340),
        Group("Prompt", {"encode": encode(Out("rewrite"), [Out("image")])}, 340),
        result("rewrite_and_edit"),
    ]
    return Workflow("Rewrite the prompt and edit", note, groups)


def tiny() -> Workflow:
    note = f"""\
Press **Run**. This graph needs no download and no picture: the tiny model that comes with the pack makes a small \
picture from text, moves one of its objects into the red box, and answers a question. It takes seconds on any computer.

Then drag the box elsewhere and run again. The tiny model was trained on drawn scenes of cubes, spheres, cones, \
cylinders and cars in eight colours; its pictures have 64 pixels a side. The other graphs are for the real model; \
this one runs with it too.

{EDIT_FILES}"""
    make = {
        "encode": encode("A blue sphere and an orange cone on plain slate ground.", room=50),
        "sampler": sample(steps=20),
        "decode": decode("sampler"),
        "preview": Node("PreviewImage", {"images": Out("decode")}, room=SMALL_PICTURE),
    }
    box = {"image": Out("decode"), "object": "blue sphere", "box": '{"x": 0.12, "y": 0.5, "w": 0.34, "h": 0.34}'}
    change = {
        "instruction": by_hand("JoyImageMoveObject", box),
        "encode_edit": encode(Out("instruction", "instruction"), [Out("instruction", "image")], room=50),
        "sampler_edit": sample("encode_edit", steps=20),
    }
    asked = {
        "encoder": Out("encoder"),
        "images.image0": Out("decode_edit"),
        "question": "Which is nearer to the camera, the orange cone or the blue sphere?",
        "temperature": 0.0,
    }
    show = {
        "decode_edit": decode("sampler_edit"),
        "save": save("decode_edit", "tiny", room=SMALL_PICTURE),
        "ask": Node("JoyImageAsk", asked, room=120),
    }
    groups = [
        models(),
        Group("Make a picture", make, 400),
        Group("Move an object", change, 400),
        Group("Result", show, 400),
    ]
    return Workflow("Tiny - try me", note, groups)


WORKFLOWS = (
    tiny(),
    edit(),
    edit_three(),
    text_to_image(),
    move(),
    rotate(),
    camera(),
    orbit(),
    ask(),
    locate_and_move(),
    rewrite_and_edit(),
)
