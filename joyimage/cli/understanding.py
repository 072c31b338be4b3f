"""Commands in which the encoder speaks: answers, clearer prompts, answers from new views of a picture's scene."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..boxes import locate_question
from ..errors import one_line
from ..settings import Answering, Sampling, check_text
from .commands import load_model, loaded_pictures, saved_name
from .outputs import Names, box_names, is_file, save_boxes


def run_ask(options) -> None:
    pictures, question = options.inputs, None
    if not is_file(pictures[-1]):
        *pictures, question = pictures
        check_text("the question", question)
    Answering(options.max_new_tokens, options.temperature, options.top_p, options.top_k, options.seed)
    loaded = loaded_pictures(pictures)
    show = None if options.json else lambda text: print(text, end="", flush=True)
    answer = load_model(options).ask(
        loaded,
        question,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
        on_text=show,
    )
    print(json.dumps({"question": question, "images": pictures, "answer": answer}) if options.json else "")


def run_rewrite(options) -> None:
    from .. import rewriting

    pictures = loaded_pictures(options.image)
    if rewriting.needs_encoder(options.prompt):
        rewritten = load_model(options).rewrite_with_notes(options.prompt, pictures)
    else:
        rewritten = rewriting.rewrite(None, options.prompt, pictures)
    if options.json:
        said = {"prompt": rewritten.prompt, "rewritten": rewritten.text, "kind": rewritten.kind}
        print(json.dumps(said | {"changes": rewritten.changes}))
        return
    print(rewritten.text)
    for change in rewritten.changes:
        print(f"joyimage: changed: {one_line(change)}", file=sys.stderr)


def run_locate(options) -> None:
    check_text("the object to locate", options.object)
    locate_question(options.object)
    (picture,) = loaded_pictures([options.image])
    names = box_names(options)
    model = load_model(options)
    boxes = model.locate(picture, options.object)
    save_boxes(options, saved_name(options), picture, boxes, names)


def run_reason(options) -> None:
    from ..reasoning import check_reasoning

    check_reasoning(options.question, options.views, options.turns)
    answering = {name: getattr(options, name) for name in Answering.names()}
    Answering(**answering)
    editing = {"steps": options.steps, "guidance_scale": options.guidance_scale}
    Sampling.of(editing)
    (picture,) = loaded_pictures([options.image])
    stems = [f"{Path(options.image).stem}-view"] * options.views * options.turns
    names = Names.of(options.output, stems, [options.image]) if options.output else None
    paths: list[str] = []

    def on_view(view) -> None:
        if names:
            details = {"prompt": view.instruction, "images": [Path(options.image).name], "seed": options.seed}
            paths.append(str(names.save(len(paths), view.picture, {**editing, **details})))
        if not options.json:
            print(f"view: {view.words}", *paths[-1:])

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
