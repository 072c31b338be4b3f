"""`joyimage train`: the set checked, what it will take planned, a LoRA trained and written."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import JoyImageError, one_line
from ..settings import AUTO, check_base_size, check_text
from ..training.settings import NAMINGS, TARGETS, Training, check_output
from .commands import load_model, loaded_pictures, model_name, note_model, saved_name
from .flags import add_base_size, add_setting, flag
from .outputs import is_file, make_folder

if TYPE_CHECKING:
    from ..memory.budget import Needs
    from ..training.checking import Checked
    from ..training.files import LoraFile
    from ..training.planning import TrainingPlan
    from ..training.running import Watched
    from ..training.trainer import Progress

STAGES = {
    "checked": "checking pictures",
    "texts": "encoding texts",
    "pictures": "encoding pictures",
    "masks": "making masks",
    "teacher": "making what guidance is learned on",
    "training": "training",
}


def run_train(options) -> None:
    settings = Training(**{name: getattr(options, name) for name in Training.names()})
    check_output(options.output, options.naming)
    check_base_size(options.base_size)
    watched = _watched(options)
    first = options.dry_run or _starts(options)
    options.quiet |= not first  # of several processes one speaks
    needs = _needs(options, settings)
    checked = _checked(options, settings)
    plan = _planned(options, needs, checked, settings)
    if options.dry_run:
        note_model(options)
        print(json.dumps(_as_dict(checked, plan), indent=2) if options.json else f"{checked}\n{plan}")
        return
    folder = options.folder or options.output.with_name(f"{options.output.stem}-training")
    for each in (folder, options.output.parent):
        make_folder(each)
    if first:
        _say(checked, plan)
    finished = _finished(folder, settings)
    began = time.perf_counter()
    trained = _trained(options, checked, settings, folder, watched)
    if first:
        if finished:
            print(f"joyimage: note: {folder} holds a run that is done: no step was made anew", file=sys.stderr)
        path = trained.save(options.output, options.naming)
        _tell(options, path, trained, checked, time.perf_counter() - began)


def _finished(folder: Path, settings: Training) -> bool:
    from ..training.checkpoints import saved_steps

    return saved_steps(folder) == settings.steps


def _starts(options) -> bool:
    """Whether this is the process that writes. Each of several gets a GPU of its own, unless the device is named.

    Raises `JoyImageError` where the extra is not installed.
    """
    from ..training.adapter import check_extra

    check_extra("peft", "accelerate")
    from ..training.processes import Processes

    processes = Processes(options.device)
    if processes.count > 1 and options.device is None:
        options.device = str(processes.device)
    return processes.first


def _watched(options) -> list[Watched]:
    """What samples are made from, its pictures read."""
    found = []
    for *pictures, prompt in options.sample:
        check_text("the prompt of a sample", prompt)
        if is_file(prompt):
            raise JoyImageError(f"{prompt} is a file, and --sample needs a prompt; put it last")
        found.append((loaded_pictures(pictures), prompt))
    if not found:
        return []
    from ..training.running import Watched

    return [Watched(prompt, tuple(pictures)) for pictures, prompt in found]


def _checked(options, settings: Training) -> Checked:
    from ..training.checking import check
    from ..training.layouts import read

    examples = read(
        options.source, options.control, options.masks, default_caption=options.caption,
        caption_extension=options.caption_extension,
    )  # fmt: skip
    base_size = _own_base_size(options) if options.base_size == AUTO else options.base_size
    with Bars(options.quiet) as bars:
        return check(examples, base_size, loss=settings.loss, progress=bars.count)


def _own_base_size(options) -> int:
    """The model's, from its files' headers."""
    from .. import checkpoints, tiny

    name = model_name(options)
    if name == "tiny":
        return tiny.BASE_SIZE
    sources = checkpoints.open_model(name, mmdit=options.mmdit, vae=options.vae, encoder=options.encoder)
    return checkpoints.base_size(sources["mmdit"], "mmdit")


def _needs(options, settings: Training) -> Needs:
    """The model's, from its files' headers. Raises `JoyImageError` for --targets that are none of its layers."""
    from ..planning import open_needs
    from ..training.planning import trained_layers

    for target in settings.targets:
        if Path(target).exists():
            raise JoyImageError(
                f"--targets is {target}, and means layers, such as {TARGETS[0]}; the pictures to learn are the first "
                f"word, as in: joyimage train {target}"
            )
    needs, _ = open_needs(
        model_name(options), mmdit=options.mmdit, vae=options.vae, encoder=options.encoder, dtype=options.dtype
    )
    trained_layers(needs.configs.mmdit, settings.targets)
    return needs


def _planned(options, needs: Needs, checked: Checked, settings: Training) -> TrainingPlan:
    """Refuses a budget that is too small before weights are opened."""
    import torch

    from ..memory import parse_size
    from ..training.planning import plan_training
    from ..training.running import check_streaming

    there = torch.cuda.is_available()
    device = options.device or ("cuda" if there or options.dry_run else "cpu")
    kind = device.partition(":")[0]
    plan = plan_training(
        needs, checked, settings, device=kind, budget=None if options.memory is None else parse_size(options.memory),
        card=torch.cuda.get_device_name() if there and kind == "cuda" else None,
    )  # fmt: skip
    check_streaming(plan, settings)
    return plan


def _trained(options, checked: Checked, settings: Training, folder: Path, watched: list[Watched]) -> LoraFile:
    from ..training.running import run

    model = load_model(options)
    notes = {"base": Path(saved_name(options)).name, "command": command(options, settings)}
    with Bars(options.quiet) as bars:
        try:
            return run(
                model, checked, settings, folder, base_size=options.base_size, watched=watched, callback=bars,
                notes=notes,
            )  # fmt: skip
        except KeyboardInterrupt as stop:
            done = f"{bars.steps} of {settings.steps} steps are" if bars.steps else "what was done is"
            raise type(stop)(f"{done} kept in {folder}; the same command goes on from there") from None


def command(options, settings: Training) -> str:
    """The command as it is kept in the file: with names in place of paths, and what is not by default."""
    words = ["joyimage", "train", options.source.name]
    words += [word for folder in options.control for word in ("--control", folder.name)]
    words += [] if options.masks is None else ["--masks", options.masks.name]
    words += ["--model", Path(saved_name(options)).name]
    given = {name: getattr(settings, name) for name in settings.names()} | {"base_size": options.base_size}
    usual = {name: getattr(Training, name) for name in Training.names()} | {"base_size": AUTO}
    for name, value in given.items():
        if isinstance(value, bool):
            words += [] if value == usual[name] else [flag(name if value else f"no_{name}")]
        elif value != usual[name]:
            shown = ",".join(value) if isinstance(value, tuple) else value
            words += [flag(name), f"{shown}"]
    return shlex.join([*words, "-o", options.output.name])


# -- what is said -----------------------------------------------------------------------------------------------------


class Bars:
    """A bar for each stage, with the time left, on the error output; as a context."""

    def __init__(self, quiet: bool):
        self.steps = 0  # of training, done
        self._quiet = quiet
        self._stage = ""
        self._bar: Any = None

    def __enter__(self) -> Bars:
        return self

    def __call__(self, progress: Progress) -> None:
        training = progress.stage == "training"
        self._show(progress.stage, progress.step, progress.steps, training)
        if training:
            self.steps = progress.step
            self._bar.set_postfix(loss=f"{progress.loss:.4f}", refresh=False)

    def count(self, stage: str, done: int, total: int) -> None:
        self._show(stage, done, total, False)

    def _show(self, stage: str, done: int, total: int, resumed: bool) -> None:
        from tqdm import tqdm

        if stage != self._stage:
            self._close()
            self._stage = stage
            self._bar = tqdm(desc=STAGES[stage], total=total, initial=done - 1 if resumed else 0, disable=self._quiet)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __exit__(self, *_error) -> None:
        self._close()


def _say(checked: Checked, plan: TrainingPlan) -> None:
    for line in str(checked).splitlines():
        print(f"joyimage: note: {one_line(line)}", file=sys.stderr)
    print(f"joyimage: note: {plan.summary}", file=sys.stderr)


def _as_dict(checked: Checked, plan: TrainingPlan) -> dict:
    return {"set": checked.as_dict(), "plan": plan.as_dict()}


def _tell(options, path: Path, trained: LoraFile, checked: Checked, seconds: float) -> None:
    if not options.json:
        print(path)
        return
    told = {"lora": str(path), **trained.metadata, "examples": len(checked.examples), "seconds": round(seconds, 3)}
    print(json.dumps(told | {"unusable": checked.as_dict()["unusable"]}, indent=2))


# -- options ----------------------------------------------------------------------------------------------------------


def add_train(commands, parents) -> None:
    train = commands.add_parser(
        "train",
        parents=parents,
        help="train a LoRA on pairs of pictures",
        description="Learns what leads from the pictures in --control to those in TARGETS, or pictures from text "
        "without --control. A run that was stopped goes on with the same command.",
    )
    train.add_argument(
        "source", type=Path, metavar="TARGETS",
        help="a folder of pictures with .txt captions, tars, or another trainer's table or configuration",
    )  # fmt: skip
    train.add_argument(
        "--control", type=Path, action="append", default=[], metavar="FOLDER",
        help="pictures that targets are made from, by the same names; may be repeated, as in an edit of several",
    )  # fmt: skip
    train.add_argument("--masks", type=Path, metavar="FOLDER", help="masks by the same names, for --loss mask")
    train.add_argument("--caption", default="", metavar="TEXT", help="for pictures without one")
    train.add_argument("--caption-extension", default=".txt", metavar="EXT", help="of captions beside pictures (.txt)")
    train.add_argument(
        "-o", "--output", type=Path, default=Path("lora.safetensors"), metavar="FILE",
        help="a .safetensors file, or a folder in PEFT's layout (lora.safetensors)",
    )  # fmt: skip
    train.add_argument("--naming", choices=NAMINGS, help="of its tensors (comfyui for a file, peft for a folder)")
    train.add_argument("--folder", type=Path, help="for cache, checkpoints, log and samples (FILE-training)")
    train.add_argument(
        "--sample", nargs="+", action="append", default=[], metavar=("IMAGE…", "PROMPT"),
        help="what samples are made from, as for edit; may be repeated (two examples of the set)",
    )  # fmt: skip
    train.add_argument("--dry-run", action="store_true", help="check all pictures, say what it will take, and stop")
    add_base_size(train)
    group = train.add_argument_group("training")
    for name in Training.names():
        add_setting(group, Training, name)
    train.set_defaults(run=run_train, lora=[])
