"""`joyimage evaluate`: public benchmarks, each a command of its own."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import one_line
from ..evaluation.settings import Predicting, Sampled, check_limit, some
from ..settings import AUTO
from .commands import check_loras, load_model, loading, saved_name
from .flags import add_setting, base_size
from .outputs import make_folder, networks_told
from .workers import add_pool, pool_of

if TYPE_CHECKING:  # commands check their options without torch
    from ..evaluation.predicting import Spread, Wanted
    from ..evaluation.report import Report
    from ..evaluation.tools import Tools
    from ..pipeline import JoyImage

NONE, OWN, SERVER = "none", "own", "server"
# Options that name a tool of the user's, the tool that each replaces, and what that does.
TOOLS = {
    "locate": ("locate", "finds an object: takes a picture and words, gives boxes"),
    "detect": ("detect", "finds things: takes three pictures, gives detections in each"),
    "poses": ("estimate", "estimates cameras: takes three pictures, gives their poses"),
    "view": ("see", "tells an object's side: takes a picture and words"),
}


def run_spatialedit(options) -> None:
    settings = Predicting(options.steps, options.guidance_scale, options.seed, options.base_size)
    check_limit(options.limit)
    check_loras(options)
    spread = _spread(options)
    from ..evaluation import layout, predicting, scoring, spatialedit

    items = some(layout.read_items(options.benchmark, options.pictures), options.limit)
    model = _lent(options)
    tools = _tools(options, model)
    make_folder(options.output)
    wanted = spatialedit.wanted(items, options.output, settings, _told(options))
    if not options.only_score:
        predicting.check_predictions(wanted)
        predicting.make_all(wanted, model, not options.quiet, spread)
    about = {**_made(options, settings, wanted), "tools": tools.names}
    scores = scoring.score(items, options.output, tools, progress=not options.quiet)
    _tell(options, spatialedit.report(items, options.output, scores, about))


def run_longtext(options) -> None:
    settings = Sampled(options.steps, options.guidance_scale, options.seed, options.base_size, options.repeats)
    check_limit(options.limit)
    check_loras(options)
    spread = _spread(options)
    from ..evaluation import longtext, predicting, tools

    prompts = some(longtext.read_prompts(options.benchmark, options.language), options.limit)
    model = _lent(options)
    reader = tools.load_tool(options.reader) if options.reader else tools.reader(lambda: model().mind)
    name = options.reader or f"{OWN}: {_who(options)}"
    make_folder(options.output)
    wanted = longtext.wanted(prompts, options.output, settings, _told(options))
    if not options.only_score:
        predicting.check_predictions(wanted)
        predicting.make_all(wanted, model, not options.quiet, spread)
    about = {**_made(options, settings, wanted), "tools": {"read": name}}
    readings = longtext.read(
        prompts, options.output, reader, name, options.language, settings.repeats, progress=not options.quiet
    )
    _tell(options, longtext.report(readings, about | {"language": options.language}))


def run_choices(options) -> None:
    check_limit(options.limit)
    check_loras(options)
    from ..evaluation import choices

    questions = some(choices.read_questions(options.table), options.limit)
    choices.check_pictures(questions)
    model = _lent(options)
    choose = (choices.by_answer if options.words else choices.by_likelihood)(lambda: model().mind)
    way = "words" if options.words else "likelihoods"
    make_folder(options.output)
    name = f"{_who(options)}, {way}"
    answered = choices.answer_all(questions, choose, name, options.output, progress=not options.quiet)
    _tell(options, choices.report(options.table.stem, answered, {**_about(options), "answers": way}))


def _lent(options) -> Callable[[], JoyImage]:
    """The model, loaded when something needs it first, which may be never."""
    return cache(lambda: load_model(options))


def _spread(options) -> Spread | None:
    """What makes pictures on several workers, where options ask for it; paths are then those of all machines."""
    if options.workers is None and options.address is None:
        return None
    pool = pool_of(options)
    options.benchmark, options.output = options.benchmark.absolute(), options.output.absolute()
    if getattr(options, "pictures", None):
        options.pictures = options.pictures.absolute()
    from ..scale.spreading import pictures

    return pictures(pool, loading(options).anywhere().load)


def _tools(options, model: Callable[[], JoyImage]) -> Tools:
    """The model's own, and those that options name in their place."""
    from ..evaluation import tools
    from ..evaluation.orbits import estimate

    found = tools.own_tools(lambda: model().mind, _who(options))
    for option, (kind, _) in TOOLS.items():
        if name := getattr(options, option):
            found = found.with_tool(kind, tools.load_tool(name), name)
    if options.detect and not options.poses:
        found = found.with_tool("estimate", partial(estimate, found.detect), f"orbits of {options.detect}")
    judge = options.judge or _usual_judge()
    if judge == OWN:
        return found.with_tool("judge", tools.own_judge(lambda: model().mind), f"{OWN}: {_who(options)}")
    if judge == SERVER:
        return found.with_tool("judge", tools.server_judge(), SERVER)
    return found if judge == NONE else found.with_tool("judge", tools.load_tool(judge), judge)


def _usual_judge() -> str:
    """The server where the environment says so for the choice among candidates too, and else none."""
    from ..judging import by_server

    return SERVER if by_server() else NONE


def _told(options) -> dict[str, Any]:
    """What decides results besides a benchmark's settings."""
    return {"model": saved_name(options), **networks_told(options)}


def _who(options) -> str:
    """The model, with all that changes what it says."""
    networks = networks_told(options)
    return f"{saved_name(options)} {json.dumps(networks)}" if networks else saved_name(options)


def _made(options, settings: Predicting, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """How the pictures were made, for the report: as asked for or, where none was made, as they say themselves."""
    from ..evaluation.predicting import described

    said, silent = described(wanted)
    about, own = _about(options), settings.options()
    if options.only_score:
        theirs = {name: value for name, value in own.items() if name not in wanted[0].settings}
        own = theirs | {name: said.pop(name) for name in own if name in said}
        about = {**said, "version": about["version"]}
    return {**about, "settings": own, **({"pictures_without_settings": silent} if silent else {})}


def _about(options) -> dict[str, Any]:
    from .. import __version__

    return {**_told(options), "version": __version__}


def _tell(options, report: Report) -> None:
    """Write the report, and print its figures and where it is."""
    data, page = report.save(options.output)
    if options.json:
        print(json.dumps({"figures": report.as_dict()["figures"], "report": str(data), "page": str(page)}, indent=2))
    else:
        print(report)
        print(data, page, sep="\n")
    missing = report.about.get("missing")
    if missing:
        print(one_line(f"joyimage: note: {missing} of {report.about['items']} pictures are missing"), file=sys.stderr)


def add_evaluate(commands, parents) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="run a public benchmark",
        description="Each benchmark writes report.json and report.html into its folder. An interrupted run goes on: "
        "what was made or answered is not made or asked again.",
    )
    benchmarks = evaluate.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    _add_spatialedit(benchmarks, parents)
    _add_longtext(benchmarks, parents)
    _add_choices(benchmarks, parents)


def _add_spatialedit(benchmarks, parents) -> None:
    parser = benchmarks.add_parser(
        "spatialedit",
        parents=parents,
        help="SpatialEdit-Bench: objects moved and turned, cameras moved",
        description="A tool is MODULE:NAME or FILE.py:NAME; without one the model itself looks.",
    )
    parser.add_argument("benchmark", type=Path, metavar="FOLDER", help="the benchmark's folder, or its list of edits")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="what the pictures are in (that of the list)")
    _add_running(parser, "edits and reports")
    _add_predicting(parser, Predicting)
    group = parser.add_argument_group("tools")
    for option, (_, purpose) in TOOLS.items():
        group.add_argument(f"--{option}", metavar="TOOL", help=purpose)
    group.add_argument(
        "--judge",
        metavar="JUDGE",
        help=f"of what stayed the same: {NONE}, {OWN}, {SERVER} or a tool ({SERVER} with JOYIMAGE_JUDGE, else {NONE})",
    )
    parser.set_defaults(run=run_spatialedit)


def _add_longtext(benchmarks, parents) -> None:
    parser = benchmarks.add_parser(
        "longtext", parents=parents, help="LongText-Bench: long texts in pictures, read back"
    )
    parser.add_argument("benchmark", type=Path, metavar="FOLDER", help="the benchmark's folder, or a file of prompts")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="en counts words, zh characters (en)")
    _add_running(parser, "pictures and reports")
    _add_predicting(parser, Sampled)
    add_setting(parser, Sampled, "repeats")
    parser.add_argument("--reader", metavar="TOOL", help="reads text: takes a picture; MODULE:NAME or FILE.py:NAME")
    parser.set_defaults(run=run_longtext)


def _add_choices(benchmarks, parents) -> None:
    parser = benchmarks.add_parser(
        "choices", parents=parents, help="multiple choice in a table of VLMEvalKit, such as CV-Bench"
    )
    parser.add_argument("table", type=Path, metavar="TABLE.tsv", help="index, image, question, A, B …, answer")
    _add_running(parser, "answers and reports")
    parser.add_argument(
        "--words", action="store_true", help="take the letter from an answer in words (the likeliest letter)"
    )
    parser.set_defaults(run=run_choices)


def _add_running(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help=f"for {what}")
    parser.add_argument("--limit", type=int, metavar="N", help="so many items, spread over all (all)")


def _add_predicting(parser: argparse.ArgumentParser, settings: type[Predicting]) -> None:
    parser.add_argument("--only-score", action="store_true", help="make no pictures, and score those that are there")
    add_setting(parser, settings, "steps")
    add_setting(parser, settings, "guidance_scale", "-g")
    add_setting(parser, settings, "seed")
    parser.add_argument(
        "--base-size", type=base_size, default=AUTO, metavar="N", help=f"{settings.purpose('base_size')} ({AUTO})"
    )
    add_pool(parser.add_argument_group("workers, which make the pictures"))
