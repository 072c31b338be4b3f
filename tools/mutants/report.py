"""What a run found: a table by module, and each mutant that lives."""

from collections import Counter
from pathlib import Path

import tomllib

from .mutations import Mutant

EQUIVALENT = Path(__file__).parent / "equivalent.toml"


def equivalents() -> dict[tuple[str, str, str], str]:
    """Why a mutant changes nothing, by its file and the line before and after."""
    entries = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", [])
    return {(entry["file"], entry["before"], entry["after"]): entry["why"] for entry in entries}


def print_report(mutants: list[Mutant], verdicts: list[dict], explained: dict[tuple[str, str, str], str]) -> None:
    counts: dict[str, Counter] = {}
    for mutant, verdict in zip(mutants, verdicts, strict=True):
        outcome = verdict["outcome"]
        if outcome != "killed" and mutant.key in explained:
            outcome = "equivalent"
        module = mutant.file.removeprefix("joyimage/").split("/")[0].removesuffix(".py")
        counts.setdefault(module, Counter())[outcome] += 1
        if outcome in ("survived", "timeout"):
            print(f"\n{mutant.file}:{mutant.line} {outcome}, {verdict['of']} tests")
            print(f"  - {mutant.before}\n  + {mutant.after}")
    outcomes = ("killed", "timeout", "equivalent", "survived")
    print(f"\n{'module':14}" + "".join(f"{outcome:>12}" for outcome in ("mutants", *outcomes)))
    for module, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        print(f"{module:14}{count.total():12}" + "".join(f"{count[outcome]:12}" for outcome in outcomes))
