"""What each command does: its input checked, the model loaded, the library called."""

from __future__ import annotations

import glob
import json
import os
import sys
import time
from pathlib import Path

from .. import download, prompts, spatial
from ..candidates import check_candidates
from ..errors import JoyImageError, MissingFileError, one_line
from ..scale.loading import Loading
from ..settings import (
    AUTO,
    PRESETS,
    SHORTCUTS,
    Sampling,
    check_base_size,
    check_batch_size,
    check_output,
    check_preset,
    check_seed,
    check_text,
)
from ..training.settings import PEFT_WEIGHTS
from ..waiting import LOAD_SECONDS, check_load_seconds
from .outputs import Names, is_file, save
from .spatial_edits import found_box, spatial_inputs

# Options of `edit` and `generate` that go into the picture's metadata and to the library under the same name.
SAMPLING = (
    "negative_prompt", "steps", "guidance_scale", "rescale", "guidance_interval", "shift", "schedule", "sigmas",
    "timesteps", "solver", "seed", "count", "batch_size", "strength", "preset", *SHORTCUTS, "candidates", "draft_steps",
)  # fmt: skip


def run_edit(options) -> None:
    pictures, instructions, names = _edit_inputs(options)
    parameters = _checked(options)
    _check_prompts(pictures, instructions, options)
    pictures = loaded_pictures(pictures)
    part, told = _part(options, pictures)
    edits = range(max(len(instructions), len(names)))
    stems = [f"{Path(names[edit % len(names)][0]).stem}-edit" for edit in edits for _ in range(options.count)]
    # a picture may be edited in its place, if -o names it; by -o with a number, or its mask, none is meant
    read = [options.mask, *filter(is_file, options.inputs if len(stems) > 1 else ())]
    outputs = Names.of(options.output, stems, [file for file in read if file])
    model = load_model(options)
    if options.to is not None:
        options.box = found_box(options, model, pictures[0])
        pictures = [spatial.draw_box(pictures[0], options.box)]
    told |= {} if options.box is None else {"box": options.box}
    parameters = _with_own_schedule(parameters, model)
    started = time.perf_counter()
    instructions = _with_captions(model, options, pictures, instructions)
    results = model.edit(
        pictures,
        instructions,
        size=options.size,
        base_size=None if options.exact else options.base_size,
        progress=not options.quiet,
        **part,
        **parameters,
    )
    seconds = time.perf_counter() - started
    save(options, saved_name(options), results, outputs, instructions, names, parameters | told, seconds)


def run_generate(options) -> None:
    parameters = _checked(options)
    _check_prompts([[]] * len(options.prompt), options.prompt, options)
    outputs = Names.of(options.output, ["picture"] * len(options.prompt) * options.count)
    model = load_model(options)
    parameters = _with_own_schedule(parameters, model)
    started = time.perf_counter()
    results = model.generate(
        options.prompt, size=options.size, base_size=options.base_size, progress=not options.quiet, **parameters
    )
    seconds = time.perf_counter() - started
    save(options, saved_name(options), results, outputs, options.prompt, [[]], parameters, seconds)


def run_inspect(options) -> None:
    reports = [_inspected(path) for given in options.path for path in _expanded(given)]
    if options.json:
        print(json.dumps([report for report, _ in reports], indent=2))
    else:
        print("\n\n".join(text for _, text in reports))


def _expanded(path: str) -> list[str]:
    """The files that a pattern names: shells on Windows leave it as it is."""
    return [path] if os.path.exists(path) else sorted(glob.glob(path)) or [path]


def _inspected(path: str) -> tuple[dict, str]:
    """What weights are, or how a picture was made: plain values for JSON, and one screen of text."""
    from .. import checkpoints, images

    if not (is_file(path) and images.is_picture(path)):
        report = checkpoints.inspect(path)
        return report.as_dict(), str(report)
    parameters = images.read_parameters(path)
    lines = (one_line(f"  {name}: {value}") for name, value in parameters.items() if value not in (None, "", []))
    return {"path": path, "parameters": parameters}, "\n".join((f"{path}: a picture made with", *lines))


def run_convert(options) -> None:
    from ..checkpoints import convert

    _use_threads(options.threads)
    written = convert(
        options.path, options.output, format=options.format, layout=options.layout, progress=not options.quiet
    )
    if options.json:
        print(json.dumps([vars(file) for file in written], indent=2))
    else:
        print("\n".join(map(str, written)))


def run_plan(options) -> None:
    from ..planning import plan_model

    if options.memory is None:
        raise JoyImageError("plan needs a budget, such as --memory 12GB")
    plan = plan_model(
        model_name(options),
        memory=options.memory,
        mmdit=options.mmdit,
        vae=options.vae,
        encoder=options.encoder,
        device=options.device or "cuda",
        dtype=options.dtype,
        size=options.size,
        references=options.references,
        reference_every=options.reference_every,
        products=options.products,
        guidance_devices=options.guidance_devices,
        sequence_devices=options.sequence_devices,
    )
    note_model(options)
    print(json.dumps(plan.as_dict(), indent=2) if options.json else plan)


def run_download(options) -> None:
    download.run(options.model, options.format, options.to, yes=options.yes, quiet=options.quiet, as_json=options.json)


def run_demo(options) -> None:
    from ..demo import run

    _use_threads(options.threads or 1)
    run(options.output, quiet=options.quiet, as_json=options.json)


def _edit_inputs(options) -> tuple[list, list[str], list[list[str]]]:
    """Pictures and instructions of `edit`, and the names of each edit's pictures.

    Spatial options bring the instruction, and draw the box.
    """
    wanted = [name for name in ("move", "rotate", "camera") if getattr(options, name) is not None]
    if len(wanted) > 1:
        raise JoyImageError(f"--{' and --'.join(wanted)} cannot go together; run one edit after the other")
    for part, whole in (("box", "move"), ("to", "move"), ("view", "rotate")):
        if getattr(options, part) is not None and getattr(options, whole) is None:
            raise JoyImageError(f"--{part} goes with --{whole}: leave it out, or name the object")
    if wanted and options.instruction:
        raise JoyImageError(f"--{wanted[0]} writes the instruction itself; leave out --instruction")
    partly = [name for name in ("mask", "outpaint") if getattr(options, name) is not None]
    if len(partly + wanted[:1]) > 1:
        raise JoyImageError(f"--{' and --'.join([*partly, *wanted][:2])} cannot go together")
    files, instructions = options.inputs, options.instruction
    if partly and not instructions and (len(files) == 1 or is_file(files[-1])):
        instructions = [""]  # the model describes the picture
    elif not wanted and not instructions:
        files, instructions = files[:-1], files[-1:]
        if files and is_file(instructions[0]):
            raise JoyImageError(f"{instructions[0]} is a file, and no instruction was given; put it last, or after -i")
    if not files:
        raise JoyImageError('give a picture and an instruction, such as: joyimage edit photo.jpg "Remove the cup."')
    pictures: list = list(files)
    if wanted:
        instructions, pictures = spatial_inputs(options, wanted[0], pictures)
    names = [Path(file).name for file in files]
    if options.each:
        return [[picture] for picture in pictures], instructions, [[name] for name in names]
    return pictures, instructions, [names]


def _part(options, pictures: list) -> tuple[dict, dict]:
    """What `edit` is told of the part that changes, and what the picture says of it; checked before weights are opened.

    A mask is read once.
    """
    from ..inpainting import read_mask, regions

    mask = None if options.mask is None else read_mask(options.mask)
    part = {"mask": mask, "outpaint": options.outpaint}
    regions(pictures if options.each else [pictures], **part)
    told = {"mask": options.mask and options.mask.name, "outpaint": options.outpaint}
    return part, {name: value for name, value in told.items() if value is not None}


def _with_captions(model, options, pictures: list, instructions: list[str]) -> list[str]:
    """The instructions, where there are none with a sentence about each picture, which is said."""
    if all(map(str.strip, instructions)):
        return instructions
    edits = pictures if options.each else [pictures]
    beginning = prompts.INPAINT if options.outpaint is None else prompts.OUTPAINT
    count = max(len(edits), len(instructions))
    given = [(edits[i % len(edits)][-1], instructions[i % len(instructions)]) for i in range(count)]
    texts = [text if text.strip() else beginning + model.caption(picture) for picture, text in given]
    for (_, empty), text in zip(given, texts, strict=True):
        if not empty.strip():
            print(f"joyimage: note: the prompt is: {one_line(text)}", file=sys.stderr)
    return texts


def check_loras(options) -> None:
    """Raise `MissingFileError` for a LoRA that is no file; of a folder it says which file in it to name."""
    for path, _ in options.lora:
        if is_file(path):
            continue
        inside = Path(path) / PEFT_WEIGHTS
        raise MissingFileError(
            f"{path} is a folder; name the file in it, {inside}"
            if inside.is_file()
            else f"there is no LoRA file {path}"
        )


def _checked(options) -> dict:
    """What goes to the library under the same names, checked before any weights are opened."""
    parameters = {name: getattr(options, name) for name in SAMPLING} | given_shortcuts(options)
    settings = Sampling.of({name: value for name, value in parameters.items() if name in Sampling.names()})
    check_candidates(options.candidates, options.draft_steps, options.count, settings)
    if options.candidates > 1:
        from ..judging import check_environment

        check_environment()
    check_text("the negative prompt", options.negative_prompt or "")
    check_seed(options.seed)
    check_output("pil", options.count)
    check_batch_size(options.batch_size)
    check_base_size(options.base_size)
    check_loras(options)
    if options.size is not None:
        from ..images import check_size

        check_size(options.size)
    return parameters


def given_shortcuts(options) -> dict:
    """The shortcuts, off where none was given. Raises `JoyImageError` for one turned off that the preset turns on."""
    check_preset(options.preset)
    values = {name: getattr(options, name) for name in SHORTCUTS}
    for name, taken in PRESETS[options.preset].items():
        if values[name] == getattr(Sampling, name):
            raise JoyImageError(
                f"--{name.replace('_', '-')} {values[name]:g} turns off what --preset {options.preset} turns on "
                f"({name} {taken:g}): leave one of the two out"
            )
    return {name: getattr(Sampling, name) if value is None else value for name, value in values.items()}


def _with_own_schedule(parameters: dict, model) -> dict:
    """With the model's steps and shift where none were given, so that a picture tells what it was made with."""
    own = {"steps": model.steps, "shift": model.shift}
    return parameters | {name: value for name, value in own.items() if parameters[name] is None}


def _check_prompts(pictures: list, given: list[str], options) -> None:
    """Raise `JoyImageError` for prompts and pictures that do not go together, before weights are opened."""
    from ..inpainting import with_beginnings
    from ..inputs import pair

    mask, outpaint = (getattr(options, name, None) for name in ("mask", "outpaint"))  # of edit alone
    pair(pictures, with_beginnings(given, mask, outpaint), empty=True)


def loaded_pictures(pictures: list) -> list:
    """Pictures, or lists of them, read from their files."""
    from ..images import load

    return [loaded_pictures(one) if isinstance(one, list) else load(one) for one in pictures]


def model_name(options) -> str | None:
    """The model folder to load; parts given one by one need none."""
    given = _named_model(options)
    return given if given or (options.mmdit and options.vae and options.encoder) else "tiny"


def _named_model(options) -> str | None:
    return options.model or os.environ.get("JOYIMAGE_MODEL")


def saved_name(options) -> str:
    """The model's name in a picture's parameters: for parts given one by one, that of the MMDiT."""
    return model_name(options) or str(options.mmdit)


def note_model(options) -> None:
    """Say which weights are used where none were named."""
    if model_name(options) == "tiny" and not _named_model(options):
        print(
            "joyimage: note: using the bundled tiny model; --model or $JOYIMAGE_MODEL names another. "
            "The published weights come with: joyimage download edit",
            file=sys.stderr,
        )


def load_model(options):
    note_model(options)
    return loading(options).load()


def loading(options) -> Loading:
    """How the model is loaded, in this process or another."""
    given = {
        "path": model_name(options),
        "mmdit": options.mmdit,
        "vae": options.vae,
        "encoder": options.encoder,
        "tokenizer": options.tokenizer,
        "device": options.device,
        "dtype": options.dtype,
        "memory": options.memory,
        "theta": options.theta,
        "products": options.products,
        "attention": getattr(options, "attention", AUTO),  # these four of commands that make pictures alone
        "compile": getattr(options, "compile", False),
        "guidance_devices": getattr(options, "guidance_devices", None),
        "sequence_devices": getattr(options, "sequence_devices", None),
        "load_seconds": getattr(options, "load_seconds", LOAD_SECONDS),
    }
    check_load_seconds(given["load_seconds"])
    return Loading(given, tuple(options.lora), options.threads)


def _use_threads(count: int | None) -> None:
    """Let torch work with so many; None leaves it to torch. In small networks threads mostly wait for each other."""
    import torch

    if count is not None:
        torch.set_num_threads(count)
