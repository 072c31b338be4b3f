"""How a data set is made of scenes: every setting with its default and range, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from ..errors import JoyImageError
from ..settings import SEEDS, Settings, check_seed, choice, finite, given, number, whole

ALL, NONE = "all", "none"
# The sub-tasks, as `tasks.TASKS` has them, which waits for numpy.
QUESTIONS = (
    "absolute_distance", "absolute_size", "height", "multiview_distance", "depth_order", "depth_choice",
    "relative_distance", "relative_size", "height_comparison", "proximity", "multiview_relative_distance",
    "multiview_size_pair", "multiview_size_ranking", "multiview_direction", "camera_distance", "camera_motion",
    "camera_pose", "point_correspondence", "object_correspondence", "scene_caption", "counting", "grounding_3d",
    "orientation",
)  # fmt: skip
# Those that may be multiple choice.
CHOICES = (
    "depth_order", "depth_choice", "relative_distance", "height_comparison", "proximity", "multiview_direction",
    "camera_distance", "camera_motion", "point_correspondence", "counting", "orientation",
)  # fmt: skip
EDITS = ("camera", "move", "rotate")
TSV = "tsv"
FORMATS = ("jsonl", "parquet", TSV)
PICTURES = ("jpeg", "png")
LANGUAGES = ("en", "zh")


@dataclass(frozen=True, kw_only=True)
class Making(Settings):
    """What is made of scenes. Raises `JoyImageError` for a value that cannot be used, naming it.

    `tasks` and `edits` may be ("all",) or ("none",), and then are the names or empty. `translations` are as
    `translations.Translations` takes them, and then have a record of words for each name.
    """

    tasks: Sequence[str] = given((ALL,), f"sub-tasks, {ALL} or {NONE}")
    edits: Sequence[str] = given((ALL,), f"kinds of edit pairs: {', '.join(EDITS)}, {ALL} or {NONE}")
    format: str = choice(
        "jsonl", FORMATS, "of questions: jsonl has pictures beside it, parquet in it, tsv is for benchmarks and takes "
        "multiple choice alone",
    )  # fmt: skip
    dialogues: bool = given(False, "put questions about the very same pictures into one dialogue")
    limit: int | None = number(None, 1, 1_000_000_000, help="questions of a sub-task, and pairs of a kind, over all")
    quota: int = number(6, 1, 10_000, help="the same of one scene, at most")
    scenes: int | None = number(None, 1, 1_000_000_000, help="how many scenes are used, the first ones")
    views: int = number(32, 1, 10_000, help="views of a scene, at most, evenly spread")
    languages: Sequence[str] = given(LANGUAGES, "of questions, in turn")
    translations: Mapping[str, Any] | None = given(None, "names of objects for questions: Chinese ones, or by language")
    marked: float = number(0.3, 0.0, 1.0, 0.05, "probability that an object is marked though words can name it")
    lift: bool = given(False, "make boxes from masks and depth for scenes without")
    pictures: str = choice("jpeg", PICTURES, "jpeg, at quality 95 and full colour, or png")
    megabytes: int = number(256, 1, 100_000, help="of a tar or Parquet file, from which on another follows")
    seed: int = number(0, 0, SEEDS - 1, help="of everything that is drawn")

    def __post_init__(self):
        _name(self, "tasks", QUESTIONS)
        _name(self, "edits", EDITS)
        _name(self, "languages", LANGUAGES)
        if not self.tasks and not self.edits:
            raise JoyImageError("tasks and edits are both none: nothing would be made")
        if not self.languages:
            raise JoyImageError(f"languages is empty; questions are asked in {' and '.join(LANGUAGES)}")
        for name, known in (("format", FORMATS), ("pictures", PICTURES)):
            if getattr(self, name) not in known:
                raise JoyImageError(f"{name} is {getattr(self, name)!r:.40}; choose one of {', '.join(known)}")
        if self.format == TSV and self.dialogues:
            raise JoyImageError("dialogues cannot be put into a tsv, which has one question in a row; choose jsonl")
        if self.format == TSV and self.tasks and not set(self.tasks) & set(CHOICES):
            raise JoyImageError(
                f"a tsv takes multiple choice alone, and {', '.join(self.tasks)} has none; choose jsonl or parquet, or "
                f"one of {', '.join(CHOICES)}"
            )
        for name in ("dialogues", "lift"):
            if not isinstance(getattr(self, name), bool):
                raise JoyImageError(f"{name} is {getattr(self, name)!r:.40}; give True or False")
        for name in ("quota", "views", "megabytes"):
            if not whole(getattr(self, name)) or getattr(self, name) < 1:
                raise JoyImageError(f"{name} is {getattr(self, name)!r:.40}; give a whole number, at least 1")
        for name in ("limit", "scenes"):
            value = getattr(self, name)
            if value is not None and (not whole(value) or value < 1):
                raise JoyImageError(f"{name} is {value!r:.40}; give a whole number, at least 1")
        if not finite(self.marked) or not 0 <= self.marked <= 1:
            raise JoyImageError(f"marked is {self.marked!r:.40}; give a probability from 0 to 1")
        check_seed(self.seed)
        if self.translations is not None:
            from .translations import checked  # here: it asks for languages

            object.__setattr__(self, "translations", checked(self.translations) or None)


def check_workers(workers: int) -> None:
    """Raise `JoyImageError` for a number of processes that is not whole or below 1."""
    if not whole(workers) or workers < 1:
        raise JoyImageError(f"workers is {workers!r:.40}; give a whole number of processes, at least 1")


def check_count(count: int) -> None:
    """Raise `JoyImageError` for a number of samples that is not whole or below 1."""
    if not whole(count) or count < 1:
        raise JoyImageError(f"count is {count!r:.40}; give a whole number of samples, at least 1")


def _name(settings: Making, field: str, known: Sequence[str]) -> None:
    """Make the names of a field those that are meant, in the order of what is known."""
    value = getattr(settings, field)
    if not isinstance(value, str | Sequence | Set):
        raise JoyImageError(f"{field} is {value!r:.40}; give names of {', '.join(known)}, or {ALL} or {NONE}")
    names = (value,) if isinstance(value, str) else tuple(value)
    meant = known if names == (ALL,) else () if names == (NONE,) else names
    if unknown := [name for name in meant if name not in known]:
        raise JoyImageError(f"{field}: nothing is called {', '.join(map(str, unknown))}; there are {', '.join(known)}")
    object.__setattr__(settings, field, tuple(name for name in known if name in meant))  # frozen for all others
