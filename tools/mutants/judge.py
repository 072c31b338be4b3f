"""Judges mutants in a copy of the tree, and remembers what came out."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .mutations import Mutant
from .reach import Library, Reach

# They read sources or documentation, or run nothing of the library.
LEFT_OUT = {
    f"tests/test_{name}.py"
    for name in ("structure", "pages", "docs", "readme", "github", "registry", "comfyui", "bench_budgets", "mutants")
}
BUDGET = 60.0  # seconds of tests per mutant, as they took before; what goes beyond is slow and says little of one line


class Judge:
    """Knows the tests of each line, and hands mutants to a process of `tools.mutants.run`."""

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder
        self.known: dict[str, dict] = {}
        self.numbers = itertools.count(1)

    def __enter__(self) -> "Judge":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results = self.folder / "verdicts.jsonl"
        if self.results.exists():
            entries = map(json.loads, self.results.read_text(encoding="utf-8").splitlines())
            self.known = {entry["mutant"]: entry for entry in entries}
        self.tree = Path(tempfile.mkdtemp(prefix="mutants-"))
        _copy(self.root, self.tree)
        environment = os.environ | {
            "PYTHONPATH": f"{self.tree}:{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.mutants.run"],
            cwd=self.tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.library, self.reach = Library.read(self.tree), self._reach()
        return self

    def __exit__(self, *_error) -> None:
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.tree)

    def verdict(self, mutant: Mutant, explained: bool = False) -> dict:
        """What became of a mutant: `outcome` (killed, survived, timeout), `by` (the test), `seconds`.

        One that lived is judged again where the tests have changed, unless it is `explained` why it lives.
        """
        name = _digest(mutant.file.encode(), mutant.code.encode())
        tests = self._tests(mutant)
        files = sorted({test.split("::")[0] for test in tests})
        state = _digest(*(self.tree.joinpath(file).read_bytes() for file in files))
        known = self.known.get(name)
        if known and (explained or known["outcome"] == "killed" or known["tests"] == state):
            return known
        log = self.folder / "logs" / name
        limit = 30 + 2 * sum(self.reach.seconds[test] for test in tests)
        change = {"file": mutant.file, "code": mutant.code, "number": next(self.numbers)}
        result = {"outcome": "survived", "by": "", "seconds": 0}
        if tests:
            result = self._ask("judge", log, **change, tests=tests, limit=limit)
        words = {"file": mutant.file, "line": mutant.line, "before": mutant.before, "after": mutant.after}
        self.known[name] = {"mutant": name, **words, **result, "tests": state, "of": len(tests)}
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.known[name], ensure_ascii=False) + "\n")
        print(f"{mutant.file}:{mutant.line} {result['outcome']} in {result['seconds']} s {result['by']}", flush=True)
        return self.known[name]

    def unfit(self, verdicts: list[dict]) -> list[str]:
        """Of the tests that killed something those that fail without any change too, run as they were then."""
        tests = sorted({verdict["by"] for verdict in verdicts} & self.reach.seconds.keys())
        return self._ask("control", self.folder / "logs" / "control", tests=tests)

    def _tests(self, mutant: Mutant) -> list[str]:
        """The tests that reach a mutant, up to the budget; those under a second first, then file by file."""
        chosen, total, place = [], 0.0, (mutant.file, mutant.line)
        for test in self.reach.of(self.library.lines(*place), self.library.test_files(*place)):
            total += self.reach.seconds[test]
            if total < BUDGET or not chosen:
                chosen.append(test)
        files = list(dict.fromkeys(test.split("::")[0] for test in chosen))
        return sorted(chosen, key=lambda test: (self.reach.seconds[test] > 1, files.index(test.split("::")[0])))

    def _ask(self, job: str, log: Path, **arguments) -> Any:
        """Have the process do a job of `tools.mutants.run.JOBS`."""
        log.parent.mkdir(exist_ok=True)
        self.process.stdin.write(json.dumps({"job": job, "log": str(log), **arguments}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def _reach(self) -> Reach:
        """What each test file reaches, recorded where it or the library has changed."""
        reach = Reach()
        folder = self.folder / "reach"
        folder.mkdir(exist_ok=True)
        tests = sorted(file.relative_to(self.tree).as_posix() for file in (self.tree / "tests").glob("test_*.py"))
        shared = sorted({*self.tree.glob("joyimage/**/*.py"), *self.tree.glob("tests/*.py")})
        shared = [file.read_bytes() for file in shared if not file.name.startswith("test_")]
        for test in tests:
            if test in LEFT_OUT:
                continue
            out = folder / f"{Path(test).stem}.json"
            state = _digest(*shared, (self.tree / test).read_bytes())
            record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
            if record.get("state") != state:
                print(f"what {test} reaches is recorded", flush=True)
                self._ask("record", out.with_suffix(".log"), file=test, out=str(out))
                record = json.loads(out.read_text(encoding="utf-8")) | {"state": state}
                out.write_text(json.dumps(record), encoding="utf-8")
            reach.add(record)
        return reach


def _copy(root: Path, tree: Path) -> None:
    """The files that git knows or would, so that neither an environment nor a result is among them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        stdout=subprocess.PIPE,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]
