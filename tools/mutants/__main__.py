"""python -m tools.mutants: sample mutants of the library, run the tests that reach them, and say which live.

Killed, it goes on where it was. A mutant is judged once; one that lived is judged anew when a test that reaches it is
new or changed. What is known lies in one folder, and without it everything begins anew.
"""

import argparse
import math
import random
import signal
import sys
import time
from itertools import zip_longest
from pathlib import Path

from .judge import Judge
from .mutations import Mutant, Place, places
from .report import equivalents, print_report

ROOT = Path(__file__).parents[2]
# Files and folders of joyimage/ in which a fault would pass for a picture.
MODULES = (
    "sampling",
    "mmdit",
    "rope",
    "vae",
    "conditioning",
    "encoder",
    "spatial",
    "boxes",
    "quantisation",
    "memory",
    "batching",
    "rendering",
    "lora",
)


def sources(module: str) -> list[str]:
    """The files of a module, as paths in the repository."""
    found = [ROOT / "joyimage" / f"{module}.py", *sorted((ROOT / "joyimage" / module).rglob("*.py"))]
    return [file.relative_to(ROOT).as_posix() for file in found if file.exists()]


def sample(modules: tuple[str, ...], count: int, seed: int) -> list[Mutant]:
    """`count` mutants, no two of one place. Modules have shares like the square roots of their numbers of places, so
    that small ones are seen too, and take turns."""
    rng = random.Random(seed)
    by_module: list[list[Place]] = []
    for module in modules:
        found = [place for file in sources(module) for place in places(file, (ROOT / file).read_text(encoding="utf-8"))]
        rng.shuffle(found)
        by_module.append(found)
    roots = [math.sqrt(len(found)) for found in by_module]
    chosen: list[list[Mutant]] = []
    for found, root in zip(by_module, roots, strict=True):
        made = (place.mutant(rng.randrange(len(place.changes))) for place in found)
        share = round(count * root / sum(roots))
        chosen.append([mutant for mutant, _ in zip((m for m in made if m), range(share), strict=False)])
    return [mutant for turn in zip_longest(*chosen) for mutant in turn if mutant][:count]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES, help=f"of joyimage/; by default {', '.join(MODULES)}")
    parser.add_argument("--count", type=int, default=300, help="how many mutants (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "mutants", help="what is known from earlier runs"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    mutants = sample(tuple(options.modules), options.count, options.seed)
    begin = time.monotonic()
    explained = equivalents()
    with Judge(ROOT, options.folder) as judge:
        verdicts = [judge.verdict(mutant, mutant.key in explained) for mutant in mutants]
        unfit = judge.unfit(verdicts)
    print_report(mutants, verdicts, explained)
    print(f"{(time.monotonic() - begin) / 60:.0f} minutes")
    for test in unfit:
        print(f"{test} fails without any change, too: what it killed may live")


if __name__ == "__main__":
    main()
