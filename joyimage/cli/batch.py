"""`joyimage batch`: the pictures and answers of a whole table, on many processes, GPUs or machines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..atomic import check_name
from ..errors import JoyImageError, one_line
from ..scale.limits import Limits
from ..scale.settings import Pool
from ..settings import SHORTCUTS, Sampling, check_base_size, check_seed, check_text
from .commands import check_loras, loading, note_model, saved_name
from .flags import add_setting, base_size, flag
from .outputs import is_file, networks_told
from .workers import add_pool, pool_of

# Settings that rows without a column for them take from the command.
DEFAULTS = ("steps", "guidance_scale", "rescale", "shift", "schedule", "solver", "strength", "preset", *SHORTCUTS)
WORDS = ("instruction", "prompt", "question")
FAILED = 1  # the exit code where rows have failed


def run_batch(options) -> int | None:
    limits = Limits(**{name: getattr(options, name) for name in Limits.names()})
    defaults = _defaults(options)
    limits.check(defaults)
    pool = pool_of(options, batch=options.batch)
    check_loras(options)
    check_name(options.output)
    if is_file(str(options.output)):
        raise JoyImageError(f"{options.output} is a file; name a folder for the results")
    from ..scale.batch import run_batch as run
    from ..scale.results import Making

    making = Making(
        load=loading(options).anywhere().load,
        folder=options.output.absolute(),
        model=saved_name(options),
        networks=networks_told(options),
        batch=options.batch,
        redo=options.redo,
        limits=limits,
    )
    note_model(options)
    summary = run(options.jobs, making, pool, defaults, progress=not options.quiet)
    told = {**vars(summary), "manifest": str(summary.manifest)}
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        print(f"{summary.made} made, {summary.there} there before, {summary.failed} failed")
        print(summary.manifest)
    if not summary.failed:
        return None
    print(one_line(f"joyimage: note: why rows failed is in the manifest, {summary.manifest}"), file=sys.stderr)
    return FAILED


def _defaults(options) -> dict:
    """What rows take that say nothing of it, checked."""
    given = {
        name: getattr(options, name) for name in (*DEFAULTS, *WORDS, "negative_prompt", "size", "base_size", "seed")
    }
    defaults = {name: value for name, value in given.items() if value is not None}
    Sampling.of({name: value for name, value in defaults.items() if name in Sampling.names()})
    for name in (*WORDS, "negative_prompt"):
        check_text(flag(name), defaults.get(name, ""))
    if empty := next((name for name in WORDS if name in defaults and not defaults[name].strip()), None):
        raise JoyImageError(f"{flag(empty)} is empty; say what rows ask for that say nothing of it, or leave it out")
    if sum(name in defaults for name in WORDS) > 1:
        raise JoyImageError(
            f"give one of {', '.join(map(flag, WORDS))}: it is what rows ask for that say nothing of it"
        )
    check_seed(defaults.get("seed", 0))
    if "base_size" in defaults:
        check_base_size(defaults["base_size"])
    if "size" in defaults:
        from ..images import check_size

        check_size(defaults["size"])
    return defaults


def add_batch(commands, parents, size) -> None:
    batch = commands.add_parser(
        "batch",
        parents=parents,
        help="make the pictures and answers of a whole table",
        description="Each row asks for a picture or an answer; docs/scale.md has the columns. Rows that fail "
        "are listed in OUT/manifest.parquet and do not end the run. Stopped or killed, the same command goes on.",
    )
    batch.add_argument("jobs", metavar="JOBS", help="a .jsonl, .csv or .parquet table, or a folder of pictures")
    batch.add_argument("output", type=Path, metavar="OUT", help="a folder for the results")
    batch.add_argument("--redo", action="store_true", help="make results anew that are there by other settings")
    group = batch.add_argument_group("workers")
    add_pool(group)
    add_setting(group, Pool, "batch")
    group = batch.add_argument_group("for rows that say nothing of it")
    group.add_argument("-i", "--instruction", help="what to do with the pictures")
    group.add_argument("--prompt", help="a picture from text alone")
    group.add_argument("--question", help="what to ask about the pictures")
    group.add_argument("-n", "--negative-prompt", help="what to stay away from")
    group.add_argument("--size", type=size, metavar="HxW", help="height and width in pixels, multiples of 16")
    group.add_argument("--base-size", type=base_size, metavar="N", help="of the pictures (auto)")
    group.add_argument("--seed", type=int, help="(0)")
    for name in DEFAULTS:
        add_setting(group, Sampling, name).default = None  # so that rows of questions are told from others
    group = batch.add_argument_group("limits of a row: one that asks for more fails, before any work")
    for name in Limits.names():
        add_setting(group, Limits, name)
    batch.set_defaults(run=run_batch)
