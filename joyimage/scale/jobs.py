"""What each row of a table asks for, checked without weights and before the first picture is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from unicodedata import normalize

from .. import spatial
from ..atomic import windows_refuses
from ..boxes import locate_question
from ..candidates import check_candidates
from ..errors import JoyImageError, one_line
from ..images import check_size
from ..places import read_place
from ..settings import (
    AUTO,
    MAX_REFERENCES,
    Answering,
    Sampling,
    check_base_size,
    check_outpaint,
    check_seed,
)
from .addresses import base_of, check_picture, within
from .columns import ANSWERING, CHOOSING, ENCODING, SAMPLING, SPATIAL, WORDS, read_cells
from .limits import Limits
from .manifest import MANIFEST
from .tables import Row, read_table

EDIT, GENERATE, ASK = "edit", "generate", "ask"
IN_A_FOLDER = 1000  # results of rows without a name: folders of millions of files are slow everywhere
ASKING = (*WORDS, "move", "rotate", "camera")  # a row has one of these columns
PICTURES = {"negative_prompt", "size", "base_size"}  # defaults of pictures alone
# Of edits alone, with what says nothing.
EDITING = {"mask": None, "outpaint": None, "exact": False, "strength": Sampling.strength}
SUFFIX = ".png"
LONGEST_NAME = 200  # bytes of a part of a name: file systems take 255, and the suffix is to be added
LONGEST_PATH = 800  # bytes of all parts: a path may have 1,024 on macOS, and 4,096 on Linux, with the folder of results


@dataclass(frozen=True)
class Job:
    """One row: a picture to make, or a question to answer.

    `images` and `mask` are as the table names them, from `base` on. `options` are those of `Sampling`, `Answering` or
    the choice among candidates that were given. With `move` and `to` the box is found
    when the job runs; a `box` is drawn.
    """

    row: int
    name: str
    kind: str
    text: str
    seed: int = 0
    images: tuple[str, ...] = ()
    base: str = ""
    negative_prompt: str = ""
    size: tuple[int, int] | None = None
    base_size: int | str | None = AUTO
    mask: str | None = None
    outpaint: tuple[int, ...] | None = None
    box: tuple[float, ...] | None = None
    move: str | None = None
    to: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pictures(self) -> list[str]:
        """Where its images lie."""
        return [within(self.base, each) for each in self.images]

    @property
    def mask_place(self) -> str | None:
        return self.mask and within(self.base, self.mask)

    @property
    def output(self) -> str:
        """The name of its file; an answer stands in the manifest alone."""
        return "" if self.kind == ASK else f"{self.name}{SUFFIX}"

    @property
    def shared(self) -> tuple[Any, ...]:
        """Jobs for which this is equal have their pictures encoded once; its order brings equal sizes together."""
        place = (self.mask or "", repr(self.outpaint), repr(self.box), self.move or "", self.to or "")
        return (*self.alike, self.base, self.images, *place)

    @property
    def alike(self) -> tuple[str, ...]:
        """Where this is equal too, pictures may come out in one size, so that they can share a forward."""
        return self.kind, repr(self.size), str(self.base_size)

    def fingerprint(self, networks: Mapping[str, Any]) -> str:
        """Of all that decides the result but the pictures' own pixels: they are known by their names."""
        known = {**asdict(self), "options": dict(self.options), **networks}
        for name in ("row", "name", "base"):
            del known[name]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Fault:
    """A row that no job can be made of, and why."""

    row: int
    name: str
    reason: str


def read_jobs(
    source: str, defaults: Mapping[str, Any] | None = None, limits: Limits | None = None
) -> Iterator[Job | Fault]:
    """A job, or a fault, for each row of a table or picture of a folder. `defaults` are cells for rows without them.

    What a row asks for beyond the `limits` is a fault, but for pictures that keep their sizes: those are not opened.
    Names that differ in case alone, or in how an accent is written, clash on some systems, so they do on all: the first
    row of a name has it.
    Raises as `read_table`.
    """
    base, names = base_of(source), set()
    limits = limits or Limits()
    for row in read_table(source):
        made = _read(row, base, defaults or {}, limits)
        # A number: of ten million names the texts would fill gigabytes.
        key = hash(normalize("NFC", made.name.casefold()))
        if isinstance(made, Job) and key in names:
            made = Fault(
                row.number,
                usual_name(row.number),
                f"the name {made.name!r} is that of another row; names are used once",
            )
        elif isinstance(made, Job):
            names.add(key)
        yield made


def _read(row: Row, base: str, defaults: Mapping[str, Any], limits: Limits) -> Job | Fault:
    name = usual_name(row.number)
    try:
        if row.fault:
            raise JoyImageError(row.fault)
        cells = read_cells(row.cells)
        name = check_name(cells.pop("name")) if "name" in cells else name
        job = _job(row.number, name, cells, base, defaults)
        _check_limits(job, limits)
        return job
    except JoyImageError as error:
        return Fault(row.number, name, one_line(str(error)))


def _check_limits(job: Job, limits: Limits) -> None:
    limits.check({**job.options, "size": job.size})
    for what, words in {"its text": job.text, "negative_prompt": job.negative_prompt, "to": job.to}.items():
        limits.check_text(what, words or "")


def usual_name(row: int) -> str:
    return f"{row // IN_A_FOLDER:05}/{row:08}"


def check_name(name: str) -> str:
    """A result's name without its suffix, in which `/` stands between folders.

    Raises `JoyImageError` for one that leads out of the folder of results, is hidden, or that not every system takes.
    """
    name = name.strip()
    name = name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name
    parts = name.split("/")
    if PureWindowsPath(name).is_absolute() or PurePosixPath(name).is_absolute() or ".." in parts or ":" in name:
        raise JoyImageError(f"the name {name!r:.80} leads out of the folder of results; give a relative one")
    if any(not part or part.startswith(".") or part != part.strip() for part in parts) or "\\" in name:
        raise JoyImageError(
            f"the name {name!r:.80} cannot be a file's: no part may be empty, hidden or hold a backslash"
        )
    if any(part.lower().endswith(SUFFIX) or part.lower() == MANIFEST for part in parts[:-1]):
        raise JoyImageError(f"the name {name!r:.80} has a folder that is {MANIFEST} or ends in {SUFFIX}; give another")
    if max(len(part.encode()) for part in parts) > LONGEST_NAME:
        raise JoyImageError(f"the name {name!r:.80} has over {LONGEST_NAME} bytes in a part; give a shorter one")
    if len(name.encode()) > LONGEST_PATH:
        raise JoyImageError(f"the name {name!r:.80} has over {LONGEST_PATH} bytes in all; give a shorter one")
    if refused := windows_refuses(PureWindowsPath(name)):
        raise JoyImageError(f"the name {name!r:.80} holds {refused!r:.40}, which Windows cannot have; give another")
    return name


def _job(row: int, name: str, cells: dict[str, Any], base: str, defaults: Mapping[str, Any]) -> Job:
    images = cells.pop("images", ())
    if len(images) > MAX_REFERENCES:
        raise JoyImageError(f"there are {len(images)} images; the model takes at most {MAX_REFERENCES}")
    kind = _kind(cells, images, defaults)
    cells = {**_fitting(kind, cells, defaults), **cells}
    seed = cells.pop("seed", 0)
    check_seed(seed)
    given = {"row": row, "name": name, "kind": kind, "seed": seed, "images": images, "base": base}
    job = _question(cells, given) if kind == ASK else _picture(cells, given)
    if cells:
        verb = {ASK: "a question", EDIT: "an edit", GENERATE: "a picture from text"}[kind]
        raise JoyImageError(f"{', '.join(cells)} cannot go with {verb}; leave it out")
    for place in (*job.pictures, *filter(None, [job.mask_place])):
        check_picture(place)
    return job


def _kind(cells: Mapping[str, Any], images: tuple[str, ...], defaults: Mapping[str, Any]) -> str:
    """What a row asks for, by its columns; the words of the command are for rows without any."""
    own = [name for name in ASKING if name in cells]
    wanted = own or [name for name in WORDS if name in defaults]
    if len(wanted) > 1:
        raise JoyImageError(f"{' and '.join(wanted)} cannot go together; give each a row of its own")
    part = "mask" in cells or "outpaint" in cells
    if not wanted and not part:
        raise JoyImageError("nothing is asked for: give an instruction, a prompt, a question, move, rotate or camera")
    word = wanted[0] if wanted else "instruction"
    if word == "prompt" and images:
        raise JoyImageError("a prompt makes a picture from text alone; call it instruction where there are images")
    if word not in ("prompt", "question") and not images:
        raise JoyImageError(f"{word} needs images, and there are none; a picture from text alone takes a prompt")
    return {"prompt": GENERATE, "question": ASK}.get(word, EDIT)


def _fitting(kind: str, cells: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The command's defaults that a row can take: words only where it asks for nothing itself."""
    unused = (SAMPLING.keys() | PICTURES if kind == ASK else ANSWERING.keys()) - {"seed"}
    if kind == GENERATE:
        unused |= EDITING.keys()
    if any(name in cells for name in ASKING):
        unused |= WORDS.keys()
    if "exact" in cells:
        unused |= {"base_size"}
    return {name: value for name, value in defaults.items() if name not in unused}


def _question(cells: dict[str, Any], given: dict[str, Any]) -> Job:
    options = {name: cells.pop(name) for name in ANSWERING if name in cells}
    Answering(**options, seed=given["seed"])
    return Job(**given, text=cells.pop("question"), options=options)


def _picture(cells: dict[str, Any], given: dict[str, Any]) -> Job:
    changing = [name for name, nothing in EDITING.items() if cells.get(name, nothing) != nothing]
    if given["kind"] == GENERATE and changing:
        raise JoyImageError(
            f"{', '.join(changing)} cannot go with a picture from text: that changes none; leave it out"
        )
    options = {name: cells.pop(name) for name in (*SAMPLING, *CHOOSING) if name in cells}
    settings = Sampling.of({name: value for name, value in options.items() if name in SAMPLING})
    check_candidates(options.get("candidates", 1), options.get("draft_steps"), 1, settings)
    place = {name: cells.pop(name) for name in SPATIAL if name in cells}
    words = (
        _spatial(place, given["images"])
        if place
        else {"text": cells.pop("instruction", None) or cells.pop("prompt", "")}
    )
    return Job(**given, **words, **_encoding(cells, bool(place)), options=options)


def _encoding(cells: dict[str, Any], spatially: bool) -> dict[str, Any]:
    """What decides encodings besides pictures and words. Takes what it uses out of the cells."""
    found = {name: cells.pop(name) for name in ENCODING if name in cells}
    if len(parts := [name for name in ("mask", "outpaint") if name in found]) + spatially > 1:
        raise JoyImageError(f"{' and '.join([*parts, 'a spatial edit'][:2])} cannot go together; give each its own row")
    if found.pop("exact", False):
        if "base_size" in found:
            raise JoyImageError("exact keeps the picture's own size, so that base_size cannot go with it")
        found["base_size"] = None
    check_base_size(found.get("base_size", AUTO))
    if "size" in found:
        found["size"] = check_size(found["size"])
    if "outpaint" in found:
        found["outpaint"] = check_outpaint(found["outpaint"])
    return found


def _spatial(place: dict[str, Any], images: tuple[str, ...]) -> dict[str, Any]:
    """The sentence of a spatial edit, and where its object goes."""
    kind = next((name for name in ("move", "rotate", "camera") if name in place), None)
    allowed = {"move": {"move", "box", "to"}, "rotate": {"rotate", "view"}, "camera": {"camera"}}.get(kind or "", set())
    if lost := sorted(place.keys() - allowed):
        raise JoyImageError(
            f"{', '.join(lost)} cannot go with {kind or 'an instruction'}; box and to need move, view rotate"
        )
    if kind == "rotate":
        return {"text": spatial.rotate_object(place["rotate"], place.get("view", ""))}
    if kind == "camera":
        return {"text": spatial.camera(*place["camera"])}
    box, where = place.get("box"), place.get("to")
    if (box is None) == (where is None) or len(images) != 1:
        raise JoyImageError("move takes one picture, and a box in its pixels or, as to, a place in words")
    sentence = spatial.move_object(place["move"])
    if where is None:
        return {"text": sentence, "box": box}
    read_place(where)
    locate_question(place["move"])
    return {"text": sentence, "move": place["move"], "to": where}
