"""Commands that answer: from new views of a picture's scene."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..settings import Answering, Sampling
from .commands import load_model, loaded_pictures
from .outputs import Names


def run_reason(options) -> None:
    from ..reasoning import check_reasoning

    check_reasoning(options.question, options.views, options.turns)
    answering = {name: getattr(options, name) for name in Answering.names()}
    Answering(**answering)
    editing = {"steps": options.steps, "guidance_scale": options.guidance_scale}
    Sampling.of(editing)
    (picture,) = loaded_pictures([options.image])
    most = options.views * options.turns
    names = Names.of(options.output, f"{Path(options.image).stem}-view", most) if options.output else None
    paths: list[str] = []

    def on_view(view) -> None:
        if names:
            details = {"prompt": view.instruction, "images": [Path(options.image).name], "seed": options.seed}
            paths.append(str(names.save(len(paths), view.picture, {**editing, **details})))
        if not options.json:
            print(f"view: yaw {view.camera.yaw:g}, pitch {view.camera.pitch:g}, zoom {view.camera.zoom}", *paths[-1:])

    model = load_model(options)
    reasoned = model.reason(
        picture,
        options.question,
        views=options.views,
        turns=options.turns,
        on_view=on_view,
        progress=not options.quiet,
        **answering,
        **editing,
    )
    _tell(options, reasoned, paths)


def _tell(options, reasoned, paths: list[str]) -> None:
    if options.json:
        found = {
            "question": options.question,
            "answer": reasoned.text,
            "views": [vars(view.camera) for view in reasoned.views],
            "instructions": reasoned.instructions,
            "pictures": paths,
            "note": reasoned.note,
        }
        print(json.dumps(found, indent=2))
        return
    if reasoned.note:
        print(f"joyimage: note: {reasoned.note}", file=sys.stderr)
    print(reasoned.text)
