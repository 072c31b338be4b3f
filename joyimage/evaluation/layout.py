"""The files of SpatialEdit-Bench as they were published: a list of edits, pictures, and how a camera is to move."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..boxes import Box
from ..errors import JoyImageError, MissingFileError
from ..images import Size, check_picture
from ..settings import VIEWS, check_text, finite

META = "SpatialEdit_Bench_Meta_File.json"
KINDS = ("move", "rotate", "camera")
MOTION = ("yaw", "pitch", "distance")
LONGEST_NAME = 240  # bytes; file systems take 255, of which endings such as _prompt.txt need some
TRUTH = "_gt"  # after the name of a camera edit's picture
# How the benchmark's prompts end; it says "the front view" and "the rear view", the model's own sentences "side view".
ENDINGS = {ending: view for view in VIEWS for ending in (f"the {view} side view", f"the {view} view")}


@dataclass(frozen=True)
class Motion:
    """What a camera edit asks for: degrees, and the change of distance, below 0 closer, in the scene's own unit."""

    yaw: float
    pitch: float
    distance: float


@dataclass(frozen=True)
class Item:
    """One edit. `box` (left, top, right, bottom, in pixels of the picture) is of a move, `view` of a rotation,
    `motion` and the picture `truth` of a camera.
    """

    kind: str
    image_id: str
    edit_id: str
    picture: Path
    prompt: str
    object: str = ""
    box: Box | None = None
    view: str = ""
    motion: Motion | None = None
    truth: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.image_id}/{self.edit_id}"

    def prediction(self, folder: Path) -> Path:
        """Where the edited picture belongs in a folder of predictions."""
        return folder / "fullset" / self.kind / "en" / self.image_id / f"{self.edit_id}.png"

    def files(self, folder: Path) -> list[Path]:
        """The edited picture, and what the released scripts look for beside it: as it was fitted, prompt, truth."""
        path = self.prediction(folder)
        beside = [path.with_name(f"{path.stem}{end}") for end in ("_src.png", "_prompt.txt", "_gt.png")]
        return [path, *beside, path.with_suffix(".json")]


def read_items(path: Path, pictures: Path | None = None) -> list[Item]:
    """The edits of a benchmark. `path` is its list, or the folder that it lies in; the pictures' paths in it are taken
    from the folder `pictures`, by default that of the list.

    Raises `JoyImageError` that names the file and the entry for what is missing or malformed, before any work.
    """
    path = path / META if path.is_dir() else path
    if not path.is_file():
        raise MissingFileError(f"there is no {path}: give SpatialEdit-Bench's folder, or its list of edits")
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise JoyImageError(f"{path} is no JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise JoyImageError(f"{path} holds no list of edits")
    items = [_Entry(path, number, entry).item(pictures or path.parent) for number, entry in enumerate(entries, 1)]
    _check_apart(path, items)
    return items


def _check_apart(path: Path, items: Sequence[Item]) -> None:
    """Raise `JoyImageError` for edits whose results would be one file, or that of what lies beside another's."""
    names: dict[Path, str] = {}
    for item in items:
        for name in item.files(Path()):
            if name in names:
                same = (
                    "two edits are called" if names[name] == item.name else f"the files of {names[name]} are those of"
                )
                raise JoyImageError(f"{path}: {same} {item.name}; give each image_id and edit_id of its own")
        names |= dict.fromkeys(item.files(Path()), item.name)


@dataclass(frozen=True)
class _Entry:
    """One entry of the list, and where it stands."""

    path: Path
    number: int
    fields: Any

    def item(self, pictures: Path) -> Item:
        if not isinstance(self.fields, Mapping):
            raise self.wrong("it is no object with fields")
        kind = self.text("type")
        if kind not in KINDS:
            raise self.wrong(f"its type is {kind!r:.40}, not one of {', '.join(KINDS)}")
        picture = pictures / self.within("image_path")
        if not picture.is_file():
            raise self.wrong(f"there is no picture {picture}")
        size = self.size(picture)
        common = (kind, self.within("image_id"), self.within("edit_id"), picture, self.text("prompt"))
        if kind == "camera":
            motion, truth = self.camera(picture)
            return Item(*common, motion=motion, truth=truth)
        if kind == "move":
            return Item(*common, self.text("object"), box=self.box(size))
        return Item(*common, self.text("object"), view=self.view())

    def wrong(self, reason: str) -> JoyImageError:
        return JoyImageError(f"{self.path}, edit {self.number}: {reason}")

    def text(self, name: str) -> str:
        value = self.fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"its {name} is {value!r:.40}, not text")
        with self.naming():
            check_text(f"its {name}", value)
        return value

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Where something of the entry is looked at: errors name the entry."""
        try:
            yield
        except JoyImageError as error:
            raise self.wrong(str(error)) from None

    def size(self, picture: Path) -> Size:
        """Of a picture, (height, width). What is none, such as a pointer to one, is refused."""
        with self.naming():
            return check_picture(picture)

    def within(self, name: str) -> str:
        """A relative path that stays in its folder."""
        text = self.text(name).replace("\\", "/")
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts or PureWindowsPath(text).drive:
            raise self.wrong(f"its {name} {text!r:.60} leads out of the benchmark's folder")
        if "\0" in text or any(len(part.encode()) > LONGEST_NAME for part in path.parts):
            raise self.wrong(f"its {name} {text!r:.60} cannot be the name of a file")
        return text

    def box(self, size: Size) -> Box:
        value = self.fields.get("bbox_gt")
        try:
            left, top, right, bottom = (
                float(side) for side in (json.loads(value) if isinstance(value, str) else value)
            )
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise self.wrong(f"its bbox_gt is {value!r:.60}, not [x1, y1, x2, y2] in pixels") from None
        if not (all(map(math.isfinite, (left, top, right, bottom))) and left < right and top < bottom):
            raise self.wrong(f"its bbox_gt {value!r:.60} is empty")
        height, width = size
        if not (right > 0 and bottom > 0 and left < width and top < height):
            raise self.wrong(f"its bbox_gt {value!r:.60} is outside of its picture of {width} x {height} pixels")
        return left, top, right, bottom

    def view(self) -> str:
        prompt = self.text("prompt").lower()
        for ending in sorted(ENDINGS, key=len, reverse=True):
            if ending in prompt:
                return ENDINGS[ending]
        raise self.wrong(f"its prompt asks for none of the views {', '.join(VIEWS)}")

    def camera(self, picture: Path) -> tuple[Motion, Path]:
        told = picture.with_suffix(".json")
        try:
            motion = json.loads(told.read_text(encoding="utf-8-sig"))["metadata"]["edit_ypd"]
            values = [motion.get(name, 0.0) for name in MOTION]
        except OSError:
            raise self.wrong(f"there is no {told}, which says how the camera moves") from None
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise self.wrong(f"{told} holds no metadata.edit_ypd with yaw, pitch and distance") from None
        if not motion.keys() & set(MOTION):
            raise self.wrong(f"{told}: metadata.edit_ypd is {motion!r:.80} and has none of {', '.join(MOTION)}")
        if not all(map(finite, values)):
            raise self.wrong(f"{told}: metadata.edit_ypd is {motion!r:.80}; give three numbers")
        for suffix in dict.fromkeys((picture.suffix, ".jpg", ".png")):
            truth = picture.with_name(f"{picture.stem}{TRUTH}{suffix}")
            if truth.is_file():
                self.size(truth)
                return Motion(*map(float, values)), truth
        raise self.wrong(f"there is no {picture.stem}{TRUTH}{picture.suffix} beside the picture, its true result")


def fitted_box(box: Sequence[float], before: tuple[int, int], after: tuple[int, int]) -> Box:
    """A box in pixels of a picture of (width, height) `before`, in pixels of the same picture scaled and cropped to
    `after`, as edits are. The same numbers where the sizes are the same.
    """
    scale = max(after[0] / before[0], after[1] / before[1])
    x, y = ((before[i] * scale - after[i]) / 2 for i in (0, 1))
    left, top, right, bottom = (side * scale for side in box)
    return left - x, top - y, right - x, bottom - y
