"""The closed loop for the published model: the best of some pictures, and an answer from new views."""

from __future__ import annotations

from typing import Any

from .build import SHOWN, Group, Node, Out, Workflow
from .graphs import EDIT_NEEDS, IMAGE
from .graphs import WORKFLOWS as JOBS
from .parts import EDIT_FILES, STEPS, by_hand, compare, models, photograph, save

DRAFT = 12  # steps of a candidate, or of a view
GALLERY = 300
WHOLE: dict[str, Any] = {"model": Out("model"), "encoder": Out("encoder"), "vae": Out("vae")}


def best_of() -> Workflow:
    note = f"""\
Moves an object with up to four seeds and keeps the best: the model itself looks whether the object is in its box \
and the red line is gone. It stops as soon as one is surely right.

Candidates take {DRAFT} steps; the chosen seed is made again with all of them. The scores appear on Best of. Any other \
prompt can be chosen from in the same way, with or without pictures.

{EDIT_NEEDS}"""
    move = {"image": IMAGE, "object": "silver spoon", "box": '{"x": 0.62, "y": 0.55, "w": 0.3, "h": 0.3}'}
    chosen = {
        **WHOLE,
        "image1": Out("instruction", "image"),
        "prompt": Out("instruction", "instruction"),
        "candidates": 4,
        "steps": STEPS,
        "draft_steps": DRAFT,
    }
    groups = [
        models(EDIT_FILES),
        Group(
            "Image and box", {"image": photograph("coffee"), "instruction": by_hand("JoyImageMoveObject", move)}, 420
        ),
        Group("Choice", {"best": Node("JoyImageBestOf", chosen, room=120, after_run="randomize")}, 420, SHOWN),
        Group(
            "Candidates",
            {"seen": Node("PreviewImage", {"images": Out("best", "candidates")}, "All candidates", GALLERY)},
            380,
        ),
        Group("Result", {"save": save("best", "best_of"), "compare": compare(IMAGE, Out("best"))}, 400),
    ]
    return Workflow("Best of four", note, groups)


def reason() -> Workflow:
    note = f"""\
Answers a question from somewhere else: the model says from where it wants to look, the editor makes that view, and \
the model answers from both pictures.

Ask where things stand for somebody on another side. Views are made up by the editor, so what the picture hides \
altogether stays a guess.

{EDIT_NEEDS}"""
    asked = {
        **WHOLE,
        "image": IMAGE,
        "question": "Seen from the left side of the table, is the spoon in front of the cup or behind it?",
        "views": 1,
        "turns": 1,
        "steps": DRAFT,
        "temperature": 0.0,
    }
    groups = [
        models(EDIT_FILES),
        Group("Image", {"image": photograph("coffee")}, 340),
        Group("Question", {"reason": Node("JoyImageReason", asked, after_run="fixed")}, 440, SHOWN),
        Group("Views", {"seen": Node("PreviewImage", {"images": Out("reason", "views")}, "Views", GALLERY)}, 380),
    ]
    return Workflow("Reason with views", note, groups)


WORKFLOWS = (*JOBS, best_of(), reason())  # all for the published model
