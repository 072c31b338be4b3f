"""The graphs for the published model, one for each job, as descriptions. `build` makes files of them."""

from __future__ import annotations

from collections.abc import Sequence

from joyimage.inpainting import OVERLAP
from joyimage.prompts import DEFAULT_QUESTION, INPAINT, OUTPAINT
from joyimage.understanding import CAPTION_TOKENS

from .build import Group, Node, Out, Workflow
from .parts import (
    EDIT,
    EDIT_FILES,
    NAMES,
    PLUS,
    PLUS_FILES,
    STEPS,
    by_hand,
    compare,
    composite,
    encode,
    loader,
    masked,
    models,
    needs,
    photograph,
    result,
    sampling,
    save,
    soft_edge,
)

EDIT_NEEDS, PLUS_NEEDS = needs(EDIT_FILES, EDIT), needs(PLUS_FILES, PLUS)
IMAGE = Out("image")
FILM = 390  # room for a square one; the classic renderer lets a taller one hang out of its node


def edit() -> Workflow:
    note = f"""\
Changes a picture as you say. Choose a picture, write what to change, and press **Run**.

The result has about the area of the base size squared and the picture's own shape. The negative prompt may stay empty.

{EDIT_NEEDS}"""
    prompt = "Turn the cup and the saucer dark blue, and put a croissant on the saucer, next to the spoon."
    nodes = {"image": photograph("coffee"), "encode": encode(prompt, [IMAGE])}
    groups = [models(EDIT_FILES), Group("Image and prompt", nodes, 400), sampling(), result("edit", IMAGE)]
    return Workflow("Edit an image", note, groups)


def edit_three() -> Workflow:
    note = f"""\
Makes one picture from three, with the **Plus** model. Choose the pictures and say in the prompt what to take from each.

Up to six can be connected; sizes may differ. The last one sets the shape of the result.

{PLUS_NEEDS}"""
    prompt = (
        "The astronaut from image 1 stands in front of the rocket on its launch pad in image 3 and holds the cat from "
        "image 2 in her arms. Keep her face and the cat's fur as they are."
    )
    pictures = {
        "first": photograph("astronaut", "Image 1"),
        "second": photograph("cat", "Image 2"),
        "third": photograph("rocket", "Image 3"),
    }
    groups = [
        models(PLUS_FILES),
        Group("Images", pictures, 300),
        Group("Prompt", {"encode": encode(prompt, list(map(Out, pictures)))}, 400),
        sampling(),
        result("edit_three", Out("third")),
    ]
    return Workflow("Edit with three images", note, groups)


def turnaround() -> Workflow:
    note = f"""\
Shows a person from all sides on one sheet, from a single picture, with the **Plus** model. Choose a picture and say \
who in it is meant.

More pictures of the same person can be connected to Encode Prompt: the more sides are known, the less is made up. \
Width and height of the sheet are among the advanced inputs.

{PLUS_NEEDS}"""
    prompt = (
        "A character turnaround sheet of the astronaut in image 1: four full-length views side by side, from the "
        "front, the right, the rear and the left. The same face, hair, orange suit and proportions in each, standing "
        "upright with relaxed arms, on plain light gray, in even light."
    )
    encoded = encode(prompt, [IMAGE], room=160, width=1536, height=768)
    groups = [
        models(PLUS_FILES),
        Group("Image and prompt", {"image": photograph("astronaut"), "encode": encoded}, 400),
        sampling(),
        result("turnaround", IMAGE),
    ]
    return Workflow("Character turnaround", note, groups)


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

{EDIT_NEEDS}"""
    groups = [
        models(EDIT_FILES),
        Group("Prompt", {"encode": encode(POSTER, room=360)}, 440),
        sampling(),
        Group("Result", {"save": save("decode", "text_to_image")}, 400),
    ]
    return Workflow("Text to image", note, groups)


def spatial(name: str, note: str, group: str, nodes: dict[str, Node], image: Out, steps: int = STEPS) -> Workflow:
    """An edit whose prompt comes from the node called "instruction"."""
    columns = [
        models(EDIT_FILES),
        Group(group, nodes, 420),
        Group("Prompt", {"encode": encode(Out("instruction", "instruction"), [image])}, 340),
        sampling(steps),
        result(name.lower().replace(" ", "_"), IMAGE),
    ]
    return Workflow(name, f"{note}\n\n{EDIT_NEEDS}", columns)


def move() -> Workflow:
    note = """\
Moves an object to where the red box is. Choose a picture, say which object in a few words, draw the box on the \
picture, and press **Run**."""
    box = '{"x": 0.74, "y": 0.5, "w": 0.2, "h": 0.42}'
    inputs = {"image": IMAGE, "object": "silver spoon", "box": box}
    nodes = {"image": photograph("coffee"), "instruction": by_hand("JoyImageMoveObject", inputs)}
    return spatial("Move an object", note, "Image and box", nodes, Out("instruction", "image"))


def rotate() -> Workflow:
    note = """\
Turns an object until you see the side you choose. Everything else stays in its place."""
    inputs = {"image": IMAGE, "object": "red cup with its saucer", "view": "right"}
    nodes = {"image": photograph("coffee"), "instruction": by_hand("JoyImageRotateObject", inputs)}
    return spatial("Rotate an object", note, "Image and view", nodes, IMAGE)


def camera() -> Workflow:
    note = """\
Looks at the same scene from somewhere else. Yaw goes around it, pitch over or under it, zoom closer or further away."""
    inputs = {"image": IMAGE, "yaw": 45, "pitch": -15, "zoom": "unchanged"}
    nodes = {"image": photograph("coffee"), "instruction": by_hand("JoyImageCamera", inputs)}
    return spatial("Move the camera", note, "Image and camera", nodes, IMAGE)


def orbit() -> Workflow:
    note = f"""\
Eight views around a scene in one run, as pictures and as a film. Camera Orbit gives a list of instructions; Encode \
Prompt reads the picture once for all of them, and everything after it runs once per view.

Steps are set to 20, enough for a draft: eight views take the time of eight edits.

{EDIT_NEEDS}"""
    inputs = {"image": IMAGE, "yaw_start": 0, "yaw_end": 360, "views": 8, "pitch": 0, "zoom": "unchanged"}
    film = {
        "film": Node("RebatchImages", {"images": Out("decode"), "batch_size": 64}, "All views in one batch"),
        "video": Node(
            "SaveWEBM",
            {"images": Out("film"), "filename_prefix": "joyimage/orbit", "codec": "vp9", "fps": 4},
            room=FILM,
        ),
    }
    groups = [
        models(EDIT_FILES),
        Group(
            "Image and orbit",
            {"image": photograph("coffee"), "instruction": by_hand("JoyImageOrbit", inputs)},
            420,
        ),
        Group("Prompts", {"encode": encode(Out("instruction", "instruction"), [IMAGE])}, 340),
        sampling(steps=20),
        Group("Film", film, 400),
        Group("Result", {"save": save("decode", "orbit"), "compare": compare(IMAGE, Out("film"))}, 400),
    ]
    return Workflow("Orbit in eight views", note, groups)


def ask() -> Workflow:
    files = {"encoder": EDIT_FILES["encoder"]}
    note = f"""\
Answers a question about a picture; the answer appears on the node. Further images can be connected, up to six. \
Left empty, the question asks for a description.

Temperature, length and seed are among the advanced inputs of Ask. Temperature 0 always gives the likeliest answer.

{needs(files, EDIT)}"""
    inputs = {
        "encoder": Out("encoder"),
        "images.image0": IMAGE,
        "question": "What is in this picture, and where is it? Name materials and colours.",
    }
    groups = [
        Group("Model", {"encoder": loader("encoder", EDIT_FILES["encoder"])}, NAMES),
        Group("Image", {"image": photograph("coffee")}, 340),
        Group("Question and answer", {"ask": Node("JoyImageAsk", inputs, room=220)}, 440),
    ]
    return Workflow("Ask about an image", note, groups)


def locate_and_move() -> Workflow:
    note = """\
Moves an object with no box drawn by hand: Locate finds the place that you describe, and Move Object draws its red box \
there.

Describe the place as you would to a person: "the empty table next to the cup". Locate shows on its face the box it \
has found."""
    place = {"encoder": Out("encoder"), "image": IMAGE, "object": "the empty table to the right of the saucer"}
    inputs = {"image": IMAGE, "object": "silver spoon", "bbox": Out("locate", "bbox")}
    nodes = {
        "image": photograph("coffee"),
        "locate": Node("JoyImageLocate", place, title="Locate the place (JoyImage)", room=60),
        "instruction": by_hand("JoyImageMoveObject", inputs),
    }
    return spatial("Locate and move an object", note, "Image and place", nodes, Out("instruction", "image"))


def rewrite_and_edit() -> Workflow:
    note = f"""\
Makes a short wish clear and specific before it is carried out. The rewritten prompt appears on the node; if rewriting \
fails, the prompt stays as it is and the node says why.

Words that are to be written in the picture stand in double quotes.

{EDIT_NEEDS}"""
    inputs = {"encoder": Out("encoder"), "images.image0": IMAGE, "prompt": "make it a foggy morning"}
    nodes = {"image": photograph("rocket"), "rewrite": Node("JoyImageRewritePrompt", inputs, room=140)}
    groups = [
        models(EDIT_FILES),
        Group("Image and wish", nodes, 340),
        Group("Prompt", {"encode": encode(Out("rewrite"), [IMAGE])}, 340),
        sampling(),
        result("rewrite_and_edit", IMAGE),
    ]
    return Workflow("Rewrite the prompt and edit", note, groups)


def within(name: str, note: str, columns: Sequence[Group], encoded: Node, whole: Out, mask: Out, edge: Out) -> Workflow:
    """An edit of what lies in a mask; every other pixel of the picture `whole` stays as it was. `edge` is the mask
    through which the result is laid over it.
    """
    groups = [
        models(EDIT_FILES),
        *columns,
        Group("Prompt and mask", {"encode": encoded, **masked(whole, mask)}, 360),
        sampling(latent=Out("masked")),
        Group(
            "Result",
            {
                "composite": composite(whole, edge),
                "save": save("composite", name.lower().replace(" ", "_")),
                "compare": compare(whole, Out("composite")),
            },
            400,
        ),
    ]
    return Workflow(name, f"{note}\n\n{EDIT_NEEDS}", groups)


def scaled(megapixels: float, title: str) -> Node:
    """The picture at a size that the model can make, so that mask and result lie on it pixel by pixel."""
    inputs = {"image": IMAGE, "upscale_method": "lanczos", "megapixels": megapixels, "resolution_steps": 16}
    return Node("ImageScaleToTotalPixels", inputs, title)


def inpaint() -> Workflow:
    note = f"""\
Changes what lies in a mask, and nothing else: the result is laid into the picture through the mask, whose edge is \
softened inwards. Here Locate finds the place in words and gives its mask.

To paint the mask instead, take ComfyUI's Load Image, right-click it, **Open in Mask Editor**, and connect its MASK in \
place of Locate's. Grow Mask widens a mask where the new thing is larger than the old.

The prompt may also be the sentence that the model was trained on, with a description of the whole picture as it shall \
be: *{INPAINT}…* The Outpaint template has the model write such a one."""
    prompt = "Replace the coffee in the cup with green tea with a slice of lemon on it."
    sought = {"encoder": Out("encoder"), "image": Out("scaled"), "object": "the coffee in the cup"}
    nodes = {
        "image": photograph("coffee"),
        "scaled": scaled(1.0, "Scale to one megapixel"),
        "locate": Node("JoyImageLocate", sought, title="Locate what to change (JoyImage)", room=60),
    }
    encoded = encode(prompt, [Out("scaled")], base_size="exact")
    mask = Out("locate", "mask")
    columns = [Group("Image and place", nodes, 360), Group("Soft edge", soft_edge(mask), 320)]
    return within("Inpaint by mask", note, columns, encoded, Out("scaled"), mask, Out("edge"))


def outpaint() -> Workflow:
    note = """\
Makes a picture wider: Pad Image adds a gray border, and the model fills it. Set how far each side goes out, in \
pixels; multiples of 16 keep the sizes right. Next to the border a few pixels of the picture are blended with it.

Ask describes the picture, and the description completes the sentence that the model was trained on. To say yourself \
what lies around, write it in place of Ask's answer."""
    pad = {"image": Out("scaled"), "left": 256, "top": 0, "right": 256, "bottom": 0, "feathering": OVERLAP}
    nodes = {
        "image": photograph("rocket"),
        "scaled": scaled(0.6, "Scale to 0.6 megapixels"),
        "padded": Node("ImagePadForOutpaint", pad),
    }
    asked = {"encoder": Out("encoder"), "images.image0": Out("scaled"), "question": DEFAULT_QUESTION}
    asked |= {"max_new_tokens": CAPTION_TOKENS, "temperature": 0.0}
    said = {
        "caption": Node("JoyImageAsk", asked, "Describe the picture (JoyImage)", room=100),
        "sentence": Node("StringConcatenate", {"string_a": OUTPAINT, "string_b": Out("caption")}, room=60),
    }
    columns = [Group("Image and border", nodes, 360), Group("Sentence", said, 400)]
    encoded = encode(Out("sentence"), [Out("padded")], base_size="exact")
    mask = Out("padded", "MASK")
    return within("Outpaint", note, columns, encoded, Out("padded"), mask, mask)


WORKFLOWS: Sequence[Workflow] = (
    ask(),
    turnaround(),
    edit(),
    edit_three(),
    inpaint(),
    locate_and_move(),
    move(),
    camera(),
    orbit(),
    outpaint(),
    rewrite_and_edit(),
    rotate(),
    text_to_image(),
)
