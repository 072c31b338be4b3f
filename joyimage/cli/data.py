"""`joyimage data`: questions and edit pairs from scenes, and what is in such a data set."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import check_name
from ..errors import JoyImageError, one_line
from ..scale.settings import Pool
from ..spatialdata.settings import ALL, NONE, Making, check_count, check_workers
from .flags import add_setting, flag
from .outputs import make_folder

if TYPE_CHECKING:
    from ..spatialdata.making import Made
    from ..spatialdata.making.spreading import Spread

TRANSLATIONS = "translations"
OPTIONAL = ("limit", "scenes")  # settings without a number of their own
SHOWN = 10  # scenes that could not be used, of which the command says why
SHEET = 24  # samples on a sheet


def add_data(commands, parents) -> None:
    data = commands.add_parser("data", help="make spatial questions and edit pairs from scenes, and look at them")
    kinds = data.add_subparsers(title="commands", required=True, metavar="COMMAND")
    make = kinds.add_parser(
        "make",
        parents=parents,
        help="questions and edit pairs from posed pictures",
        description="Writes questions in one of several formats, and edit pairs as tars that `joyimage train` takes. "
        "A run that was stopped goes on with the same command.",
    )
    make.add_argument("source", type=Path, metavar="SCENES", help="a folder of scenes, one scene, or a Parquet file")
    make.add_argument("output", type=Path, metavar="OUT", help="a folder for the data set, new or of the same command")
    make.add_argument("--workers", type=int, default=1, metavar="N", help="processes, which change no byte (1)")
    make.add_argument("--address", help="of a Ray cluster whose machines have the workers, as in HOST:6379, or auto")
    for name in Making.names():
        if name == TRANSLATIONS:
            make.add_argument(
                flag(name), type=Path, metavar="FILE",
                help="names of objects in Chinese, for questions: JSON from English names to Chinese ones, or lines of "
                "an English name, a tab and the Chinese one",
            )  # fmt: skip
        elif name in OPTIONAL:
            help_ = f"{Making.purpose(name)} (all)"
            make.add_argument(f"--{name}", type=int, metavar="N", help=help_)
        else:
            add_setting(make, Making, name)
    make.set_defaults(run=run_make)
    inspect = kinds.add_parser("inspect", parents=parents, help="count what is in a data set, and show some of it")
    inspect.add_argument("output", type=Path, metavar="OUT", help="the folder of a data set")
    inspect.add_argument("--sheet", type=Path, metavar="FILE", help="write a PNG with samples of each kind")
    inspect.add_argument("--count", type=int, default=SHEET, metavar="N", help=f"samples on the sheet ({SHEET})")
    inspect.set_defaults(run=run_inspect)


def run_make(options: argparse.Namespace) -> None:
    given: dict[str, Any] = {name: getattr(options, name) for name in Making.names()}
    for name in ("tasks", "edits"):
        if not given[name]:
            raise JoyImageError(f"--{name} is empty; name some, or say {ALL} or {NONE}")
    given[TRANSLATIONS] = _translations(options.translations)
    settings = Making(**given)
    check_workers(options.workers)
    spread = _spread(options)
    from ..spatialdata.making import make

    made = make(
        options.source, options.output, settings, workers=options.workers, spread=spread, progress=not options.quiet
    )
    _tell(options, made)


def _translations(file: Path | None) -> dict[str, dict[str, str]] | None:
    if file is None:
        return None
    from ..spatialdata.translations import read_translations  # here: what it reads files with waits for numpy

    return read_translations(file)


def _spread(options: argparse.Namespace) -> Spread | None:
    """What has the scenes done on a cluster, where there is one; paths are then those of all its machines."""
    if options.address is None:
        return None
    pool = Pool(workers=options.workers, gpus_per_worker=0, cpus_per_worker=1, address=options.address)
    options.source, options.output = options.source.absolute(), options.output.absolute()
    from ..scale.spreading import scenes

    return scenes(pool)


def _tell(options: argparse.Namespace, made: Made) -> None:
    if options.json:
        print(json.dumps({"output": str(options.output), **made.as_dict()}, indent=2, ensure_ascii=False))
        return
    for several, what in ((made.failed, "left out"), (made.silent, "of no use")):
        for name, reason in several[:SHOWN]:
            print(one_line(f"joyimage: note: {name} is {what}: {reason}"), file=sys.stderr)
        if len(several) > SHOWN:
            print(f"joyimage: note: {len(several)} scenes are {what}; {options.output} says why", file=sys.stderr)
    if made.unnamed:
        told = f"{', '.join(made.unnamed[:SHOWN])}{' …' if len(made.unnamed) > SHOWN else ''}"
        print(one_line(f"joyimage: note: {len(made.unnamed)} names have no translation: {told}"), file=sys.stderr)
    questions, pairs = sum(made.questions.values()), sum(made.pairs.values())
    print(f"{questions} questions and {pairs} edit pairs from {made.used} of {made.scenes} scenes", options.output)


def run_inspect(options: argparse.Namespace) -> None:
    _check_sheet(options)
    from ..spatialdata.inspecting import inspect, sheet

    contents = inspect(options.output)
    path = None if options.sheet is None else sheet(options.output, options.sheet, options.count)
    if options.json:
        told = {**contents.as_dict(), **({} if path is None else {"sheet": str(path)})}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    print(contents)
    if path is not None:
        print(path)


def _check_sheet(options: argparse.Namespace) -> None:
    if options.sheet is None:
        return
    check_name(options.sheet)
    check_count(options.count)
    if options.sheet.suffix.lower() != ".png" or options.sheet.is_dir():
        raise JoyImageError(f"a sheet is saved as PNG; name {options.sheet.with_suffix('.png')}")
    make_folder(options.sheet.parent)
