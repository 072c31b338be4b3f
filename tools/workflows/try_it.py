"""The graphs that run at once: the bundled model on drawn scenes of its kind, with nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..tiny import example_scenes, example_trials, examples
from .build import BADGE, SHOWN, Group, Node, Out, Workflow
from .parts import SCENE, by_hand, compare, composite, decode, encode, masked, models, sample, save, scene

STEPS, SEED = example_trials.STEPS, example_trials.NOISE_SEED
SCENE_WIDTH = 420  # of a column: the longest name of a scene stands whole beside its label
IMAGE = Out("scene", "image")
KNOWN = """\
That model knows drawn scenes of coloured solids, 64 pixels a side, and no photographs: the other templates are for \
those."""
ABOUT = f"""\
It runs on the small model that comes with the pack, with nothing to download, in seconds on any computer. {KNOWN}"""


# What teaches the bundled model new words for what it can do: 60 steps, half a minute on an idle core.
WISH = "Hide the car."
TRAINING = {
    "steps": 60, "learning_rate": 0.001, "batch_size": 8, "warm_up": 5, "cool_down": 20, "checkpointing": False,
}  # fmt: skip


def sampled(name: str, encoded: str, latent: Out | None = None, model: Out | None = None) -> dict[str, Node]:
    made = sample(encoded, STEPS, latent, seed=SEED)
    made = replace(made, inputs={**made.inputs, "model": model}) if model else made
    return {f"sampler{name}": made, f"decode{name}": decode(f"sampler{name}")}


def move() -> Workflow:
    note = f"""\
**Press Run.** The solid goes where the red box is.

Then draw the box elsewhere, about as large as the solid, or choose another scene, and run again.

{ABOUT}"""
    inputs = {"image": IMAGE, "object": Out("scene", "object"), "box": example_scenes.BOX}
    groups = [
        models(),
        Group("Scene and box", {"scene": scene(), "instruction": by_hand("JoyImageMoveObject", inputs)}, SCENE_WIDTH),
        Group("Prompt", {"encode": encode(Out("instruction", "instruction"), [Out("instruction", "image")])}, 340),
        Group("Sampling", sampled("", "encode"), 320),
        Group("Result", {"save": save("decode", "try_move"), "compare": compare(IMAGE, Out("decode"))}, 400),
    ]
    return Workflow("1 Try it - Move an object", note, groups)


def turn() -> Workflow:
    note = f"""\
**Press Run.** The car turns until its right side is seen; then the camera goes around the scene in four views.

The dial and the orbit can be set by hand. After the run the orbit shows the views as a strip.

{ABOUT}"""
    view = {"image": IMAGE, "object": Out("scene", "car"), "view": example_scenes.VIEW}
    first, *_, last = yaws = example_scenes.YAWS
    around = {
        "image": IMAGE, "yaw_start": first, "yaw_end": last, "views": len(yaws), "zoom": example_scenes.ZOOM,
    }  # fmt: skip
    groups = [
        models(),
        Group("Scene and side", {"scene": scene(), "turn": by_hand("JoyImageRotateObject", view)}, SCENE_WIDTH),
        Group(
            "Rotate the car",
            {
                "encode": encode(Out("turn", "instruction"), [IMAGE]),
                **sampled("", "encode"),
            },
            320,
        ),
        Group("Rotated", {"save": save("decode", "try_rotate"), "compare": compare(IMAGE, Out("decode"))}, 380),
        Group("Orbit the camera", {"orbit": by_hand("JoyImageOrbit", around)}, 360),
        Group(
            "Four views",
            {
                "encode_orbit": encode(Out("orbit", "instruction"), [IMAGE]),
                **sampled("_orbit", "encode_orbit"),
            },
            320,
        ),
        Group(
            "Seen from around",
            {
                "save_orbit": save("decode_orbit", "try_orbit"),
                "film": Node("RebatchImages", {"images": Out("decode_orbit"), "batch_size": 64}, "All views"),
                "compare_orbit": compare(IMAGE, Out("film")),
            },
            380,
        ),
    ]
    return Workflow("2 Try it - Rotate and orbit", note, groups)


def locate() -> Workflow:
    note = f"""\
**Press Run.** The model answers a question about the scene, finds the car, takes it away, and puts the other solid in \
its place: no box is drawn by hand.

{ABOUT}"""
    encoder = Out("encoder")
    asked = {"encoder": encoder, "images.image0": IMAGE, "question": Out("scene", "question"), "temperature": 0.0}
    sought = {"encoder": encoder, "image": IMAGE, "object": Out("scene", "car")}
    moved = {"image": Out("decode_away"), "object": Out("scene", "object"), "bbox": Out("locate", "bbox")}
    groups = [
        models(),
        Group(
            "Ask and locate",
            {
                "scene": scene(),
                "ask": Node("JoyImageAsk", asked, room=60),
                "locate": Node("JoyImageLocate", sought, room=40),
            },
            SCENE_WIDTH,
        ),
        Group(
            "Take the car away",
            {"encode_away": encode(Out("scene", "removal"), [IMAGE]), **sampled("_away", "encode_away")},
            320,
        ),
        Group("Move the solid there", {"instruction": by_hand("JoyImageMoveObject", moved)}, 420),
        Group(
            "Sampling",
            {
                "encode": encode(Out("instruction", "instruction"), [Out("instruction", "image")]),
                **sampled("", "encode"),
            },
            320,
        ),
        Group("Result", {"save": save("decode", "try_locate"), "compare": compare(IMAGE, Out("decode"))}, 400),
    ]
    return Workflow("3 Try it - Ask, locate and move", note, groups)


def inpaint() -> Workflow:
    note = f"""\
**Press Run.** A picture is made from the scene's description, the solid is found in it, and what lies in that mask is \
painted anew: every pixel outside the mask stays as it was.

{ABOUT}"""
    picture, mask = Out("decode_text"), Out("locate", "mask")
    sought = {"encoder": Out("encoder"), "image": picture, "object": Out("scene", "object")}
    groups = [
        models(),
        Group(
            "From text",
            {"scene": scene(), "encode_text": encode(Out("scene", "description"))},
            SCENE_WIDTH,
        ),
        Group("Made from text", sampled("_text", "encode_text"), 320),
        Group(
            "What to change",
            {
                "locate": Node("JoyImageLocate", sought, room=40),
                "encode": encode(Out("scene", "recolouring"), [picture]),
                **masked(picture, mask),
            },
            340,
        ),
        Group("Sampling", sampled("", "encode", Out("masked")), 320),
        Group(
            "Result",
            {
                "composite": composite(picture, mask),
                "save": save("composite", "try_inpaint"),
                "compare": compare(picture, Out("composite")),
            },
            400,
        ),
    ]
    return Workflow("4 Try it - Text to image, inpaint", note, groups)


def train() -> Workflow:
    note = f"""\
**Press Run.** The model learns a new instruction from fifteen pairs of pictures, in one or two minutes: "{WISH}" It \
knows how to take things away, but not these words. Compare shows what it makes of them before and after, on a scene \
that it was not trained on.

Training needs two packages in ComfyUI's Python: **pip install peft accelerate**. The curve on Train LoRA is the loss; \
stopped, it goes on from there with the next run. Save LoRA Weights writes a file to output/loras, for Load LoRA.

For pictures of your own take the loaders' published files, give folders or lists of pictures to Training Set, and set \
Train LoRA to its defaults.

It runs on the small model that comes with the pack. {KNOWN}"""
    known = {"batch_index": 1, "length": examples.COUNT - 1}  # all but the first, which is the one to try
    pairs = {
        "all": Node("JoyImageExampleScene", {"scene": "all"}, "All scenes", SCENE),
        "before": Node("ImageFromBatch", {"image": Out("all", "image"), **known}, "Pictures to learn from"),
        "after": Node("ImageFromBatch", {"image": Out("all", "cleared"), **known}, "What is to come out"),
    }
    learned = {"encoder": Out("encoder"), "vae": Out("vae"), "targets": Out("after"), "images.image0": Out("before")}
    trained = {"model": Out("model"), "set": Out("set"), **TRAINING}
    groups = [
        models(),
        Group("Pairs", pairs, 360),
        Group(
            "Training",
            {
                "set": Node("JoyImageTrainingSet", {**learned, "captions": WISH}),
                "train": Node("JoyImageTrainLora", trained),
            },
            400,
            SHOWN,
        ),
        Group("A scene to try", {"scene": scene(), "encode": encode(WISH, [IMAGE])}, SCENE_WIDTH),
        Group("Before", sampled("_before", "encode"), 320),
        Group(
            "After",
            {
                "learned": Node("LoraModelLoader", {"model": Out("model"), "lora": Out("train", "lora")}, room=BADGE),
                **sampled("_after", "encode", model=Out("learned")),
            },
            320,
        ),
        Group(
            "Result",
            {
                "save": save("decode_after", "try_train"),
                "compare": compare(Out("decode_before"), Out("decode_after")),
                "file": Node(
                    "SaveLoRA",
                    {"lora": Out("train", "lora"), "prefix": "loras/hide", "steps": Out("train", "steps")},
                    room=BADGE,
                ),
            },
            400,
        ),
    ]
    return Workflow("5 Try it - Train a LoRA", note, groups)


WORKFLOWS: Sequence[Workflow] = (move(), turn(), locate(), inpaint(), train())
