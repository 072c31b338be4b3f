"""A data set from scenes: a shard of each, then all of them together. A run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ... import __version__
from ...atomic import Part, check_name, held
from ...errors import JoyImageError, counted
from ...settings import whole
from ..extras import check_extras
from ..readers import find_scenes, scene_places
from ..readers.common import Found
from ..records import Batch
from ..scenes import Scene, spelt
from ..settings import Making, check_workers
from ..writers import FORMATS
from .fingerprints import fingerprint
from .merging import FOLDER as MAKING
from .merging import Made, Merge
from .shards import FOLDER as SHARDS
from .shards import count_shards, read_shard, shard_path
from .spreading import Paths, Spread, here, processes
from .standing import listing, lost, measured, named, other_scenes
from .work import Job, Prepare, why, work

FILE = "data.json"  # of a data set: what it was made with, and, once it is complete, what is in it
USUAL = Making()
GOES_ON = "the scenes that are done are kept, and the same command goes on from there"
TOLD = 3  # scenes of which an error says why they cannot be used
Source = str | Path | Iterable[Scene]


class NothingUsableError(JoyImageError):
    """All scenes of a data set failed, and why each did, or there are none."""

    def __init__(self, failed: Sequence[tuple[str, str]]):
        if not failed:
            super().__init__("there are no scenes, so nothing is written; what gives them may have given them before")
            return
        told = "; ".join(f"{name}: {reason}" for name, reason in failed[:TOLD])
        more = f"; and {len(failed) - TOLD} more" if len(failed) > TOLD else ""
        super().__init__(f"no scene can be used, so nothing is written. {told}{more}")


def make(
    scenes: Source,
    out: str | Path,
    settings: Making = USUAL,
    *,
    workers: int = 1,
    prepare: Prepare | None = None,
    spread: Spread | None = None,
    progress: bool = False,
) -> Made:
    """Make a data set of scenes in the folder `out`, and say what is in it.

    scenes: a path as `read_scenes` takes it, or scenes, which are read as they are needed. workers: processes, which
    change no byte; `spread` is what gives the work out in their place. prepare: what is done to each scene first, where
    the work is done, such as lifting it by masks of one's own. Stopped, the same call goes on with the scenes
    that are missing; complete, it does nothing. A scene that cannot be used is told of in the result, and the others
    are done. Raises `JoyImageError` before any work for settings that cannot be used, scenes that are not there, and a
    folder with other files, or that was begun with other settings, naming these; and, with nothing written, where none
    of the scenes can be used.
    """
    check_workers(workers)
    out = Path(out)
    check_name(out)
    needs = FORMATS[settings.format].needs if settings.tasks else ()
    check_extras("scipy", *needs)
    found, total, name, listed = _listed(scenes, settings)
    new = _prepare(out)
    with held(out, "joyimage data make"):
        prepared = getattr(prepare, "__name__", "given") if prepare else "none"
        begun = {"version": __version__, "source": name, "prepare": prepared, "settings": asdict(settings)}
        if (made := _begin(out, begun, listed)) is not None:
            return made
        give = spread or (here if workers == 1 else processes(workers))
        with tqdm(total=total, unit="scene", disable=not progress) as bar:
            do = partial(_do, settings=settings, out=out, prepare=prepare)
            with _writing(out, new):
                merge = Merge(out, settings)
                made = _made(give(do, _jobs(found)), merge, bar.update)
        _write(out, {**begun, "scenes": listed, "files": measured(out, merge.names), "made": made.as_dict()})
        shutil.rmtree(out / SHARDS, ignore_errors=True)
        return made


def _listed(scenes: Source, settings: Making) -> tuple[Iterator[Found], int | None, str, dict[str, Any] | None]:
    """The scenes, how many there are where that is known, what tells their place from others, and their listing."""
    if not isinstance(scenes, str | Path):
        found = (Found(scene.name, partial(_same, scene)) for scene in scenes)
        listed = listing([scene.name for scene in scenes[: settings.scenes]]) if isinstance(scenes, Sequence) else None
        return islice(found, settings.scenes), settings.scenes, "given", listed
    places, path = scene_places(scenes), Path(scenes).resolve()
    digest = hashlib.sha256(str(path).encode(errors="surrogatepass")).hexdigest()[:12]
    total = None if any(reader.find for _, reader in places) else len(places)
    if settings.scenes is not None:
        total = min(settings.scenes, total or settings.scenes)
    listed = listing([named(place) for place, _ in places[: settings.scenes]])
    return islice(find_scenes(places), settings.scenes), total, f"{path.name} {digest}", listed


def _same(scene: Scene) -> Scene:
    return scene


def _prepare(out: Path) -> bool:
    """Make the folder, and say whether it is new. Raises `JoyImageError` where it cannot be, or holds others' files."""
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        raise JoyImageError(f"nothing can be written into {out}: {error.strerror or error}; name another") from error
    if names and FILE not in names:
        raise JoyImageError(f"{out} holds other files, such as {min(names)}; name a new folder")
    return new


@contextmanager
def _writing(out: Path, new: bool) -> Iterator[None]:
    """Where a data set is made: says what the system refuses, such as room on a disk, with the folder."""
    try:
        yield
    except NothingUsableError:
        _discard(out, new)
        raise
    except JoyImageError:  # which a missing file is, too
        raise
    except OSError as error:
        where = f"{out}: {error.filename}" if error.filename else str(out)
        raise JoyImageError(f"{where}: {error.strerror or error}; {GOES_ON}") from error


def _discard(out: Path, new: bool) -> None:
    """Leave the folder as it was found, where there is nothing to be written."""
    for folder in (SHARDS, MAKING):
        shutil.rmtree(out / folder, ignore_errors=True)
    (out / FILE).unlink(missing_ok=True)
    if new:
        out.rmdir()


def _begin(out: Path, begun: dict[str, Any], listed: dict[str, Any] | None) -> Made | None:
    """What is in a complete data set; else None, with the folder marked.

    Raises `JoyImageError` for other settings, and for a complete one of other scenes, or that has lost files.
    """
    if not (out / FILE).exists():
        _write(out, begun)
        return None
    known = read_about(out)
    if differ := list(_differences(known, json.loads(json.dumps(begun)))):
        raise JoyImageError(
            f"{out} was begun with other settings: {'; '.join(differ)}. Give the same ones, or name another folder"
        )
    if "made" not in known:
        return None
    what = f"remove {out}, or name another folder, to make it anew"
    if listed and known.get("scenes") and (differ := other_scenes(known["scenes"], listed)):
        raise JoyImageError(f"{out} is complete, and was made of other scenes: {differ}; {what}")
    if gone := lost(out, known.get("files", {})):
        raise JoyImageError(f"{out} was complete, and has lost {', '.join(gone)}; {what}")
    return Made.of(known["made"])


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    pairs = {key: (known[key], wanted[key]) for key in ("version", "source", "prepare")}
    names = known["settings"].keys() | wanted["settings"].keys()
    pairs |= {key: (known["settings"].get(key), wanted["settings"].get(key)) for key in sorted(names)}
    for key, (before, now) in pairs.items():
        if before != now and isinstance(before or now, dict):
            yield f"{key} are others"
        elif before != now:
            yield f"{key} was {_said(before)} and is {_said(now)}"


def _said(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else "all" if value is None else str(value)


def read_about(out: Path) -> dict[str, Any]:
    """What a data set's folder says of itself. Raises `JoyImageError` where it is none."""
    try:
        values = json.loads((out / FILE).read_text(encoding="utf-8"))
        if "made" in values:
            Made.of(values["made"])
            _check_told(values)
        if isinstance(values["settings"], dict) and {"version", "source", "prepare"} <= values.keys():
            return values
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise JoyImageError(f"{out} is no data set of `joyimage data make`: it has no {FILE} that can be read")


def _check_told(values: dict[str, Any]) -> None:
    """Raise `ValueError` or `TypeError` unless scenes and files are, as far as told, as `standing` tells them."""
    listed = values.get("scenes")
    if listed is not None and set(listed) != {"count", "names"}:
        raise ValueError
    for count, size in values.get("files", {}).values():
        if not whole(count) or not whole(size):
            raise ValueError


def _write(out: Path, values: dict[str, Any]) -> None:
    with Part(out) as part:
        part.path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.publish([out / FILE], replace=True)


def _made(paths: Paths, merge: Merge, update: Callable[[int], object]) -> Made:
    """The data set of all shards, as they come."""
    try:
        with merge, closing(paths):
            done = 0
            for path in paths:
                batch = read_shard(path)
                if batch is None:
                    raise JoyImageError(f"{path}: cannot be read, just after it was written; is the disk full?")
                merge.add(batch)
                done += 1
                update(1)
                if merge.full:
                    break
            if merge.broken or not done:
                raise NothingUsableError(merge.broken)
            return merge.publish()
    except KeyboardInterrupt as stop:  # workers have finished the scenes at hand by now
        kept = count_shards(merge.out)
        told = f"{counted(kept, 'scene')} {'is' if kept == 1 else 'are'} kept in {merge.out}"
        raise type(stop)(f"{told}; the same command goes on from there") from None


def _do(job: Job, settings: Making, out: Path, prepare: Prepare | None) -> Path:
    """The shard of a scene, unless it is there already. What failed is tried again, and what has changed since."""
    path = shard_path(out, job.place)
    known, mark = read_shard(path), fingerprint(job, settings.views)
    if known is None or known.failed:
        return work(job, settings, path, prepare, mark)
    _check_same(job, known, out)
    return path if known.mark == mark else work(job, settings, path, prepare, mark)


def _check_same(job: Job, known: Batch, out: Path) -> None:
    if known.scene != job.name:
        raise JoyImageError(
            f"{out} was begun with other scenes: the one of number {job.place} was {known.scene} and is {job.name}; "
            "name another folder"
        )


def _jobs(found: Iterable[Found]) -> Iterator[Job]:
    """Scenes as they come. Another state of a scene must follow it, so that no more than one is kept."""
    base: Scene | None = None
    for place, each in enumerate(found):
        try:
            scene = each.read()
        except Exception as error:  # of one of thousands of scenes: it does not end the others
            name = spelt(each.name)
            yield Job(place, name, None, failed=((name, why(error)),))
            continue
        if not scene.state_of:
            base = scene
            yield Job(place, scene.name, scene)
        elif base is not None and base.name == scene.state_of:
            yield Job(place, scene.name, scene, base)
        else:
            reason = f"it is another state of {scene.state_of}, which is not before it; name its folder so that it is"
            yield Job(place, scene.name, scene, failed=((scene.name, reason),))
