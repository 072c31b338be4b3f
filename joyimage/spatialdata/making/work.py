"""All that one scene gives: its questions, edit pairs and marked pictures. Each scene is done alone, in any order."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from PIL import Image

from ...boxes import draw_box
from ...errors import JoyImageError, shortened
from ...spatial import Move
from ..contradictions import where
from ..edits import CameraPair, ObjectPair, camera_pairs, object_pairs
from ..index import SceneIndex, called, index_scene
from ..lifting import lift, unlifted
from ..questions.evening import sides
from ..questions.form import Asking, Mark, Question
from ..questions.marks import draw
from ..records import Batch, Pair, Picture, Sample, Shown, Turn, encoded
from ..scenes import Scene, spelt
from ..settings import Making
from ..silence import silence
from ..tasks import make_questions
from ..translations import ENGLISH, Translations
from .shards import write_shard

Prepare = Callable[[Scene], Scene]
HELD = 16  # pictures of a scene that are kept as they were read
SUFFIXES = {"jpeg": ".jpg", "png": ".png"}


@dataclass(frozen=True)
class Job:
    """A scene to be done. `place`: its number among all, from 0. `scene`: None where it could not be read.

    before: the state of the scene that this one is another state of. failed: as in `Batch`.
    """

    place: int
    name: str
    scene: Scene | None
    before: Scene | None = None
    failed: tuple[tuple[str, str], ...] = ()


def work(job: Job, settings: Making, path: Path, prepare: Prepare | None = None, mark: str = "") -> Path:
    """Write the shard of a scene and return its path. The same job and settings give the same bytes.

    prepare: what is done to a scene first. mark: as in `Batch`. What cannot be used is told in the shard. Raises
    `OSError` where it cannot be written.
    """
    failed = list(job.failed)
    samples: tuple[Sample, ...] = ()
    pairs: tuple[Pair, ...] = ()
    unnamed: tuple[str, ...] = ()
    silent = ""
    album = Album(job.place, settings.pictures)
    with _telling(job.name, failed):
        if job.scene is not None:
            index = _index(job.scene, settings, prepare)
            words = Translations(settings.translations)
            unnamed = _unnamed(index, settings, words)
            asked = tuple(_samples(index, album, job.place, settings))
            samples, pairs = asked, tuple(_camera_pairs(index, album, job.place, settings))
            with _telling(job.name, failed, "its state before: "):
                if job.before is not None:
                    before = _index(job.before, settings, prepare)
                    # By the English names, as sentences are.
                    states = called(before, words, ENGLISH), called(index, words, ENGLISH)
                    pairs += tuple(_object_pairs(*states, album, job.place, settings))
            silent = "" if samples or pairs or failed else silence(index, settings)
    return write_shard(path, Batch(job.name, samples, pairs, tuple(failed), unnamed, silent, mark))


@contextmanager
def _telling(name: str, failed: list[tuple[str, str]], about: str = "") -> Iterator[None]:
    """Where one of thousands of scenes is used: whatever is wrong with it is told, and does not end the others."""
    try:
        yield
    except Exception as error:
        failed.append((name, why(error, about)))


def why(error: Exception, about: str = "") -> str:
    """Why a scene could not be used, in words where these are known."""
    told = str(error)
    if isinstance(error, OSError) and error.strerror:
        told = f"{error.filename or 'a file'}: {error.strerror}"
    elif not isinstance(error, JoyImageError):
        told = f"{type(error).__name__}: {error}"
    return spelt(shortened(f"{about}{told}"))


class Album:
    """The pictures of a scene's records, each drawn and encoded once, and named by scene, state, view and marks."""

    def __init__(self, place: int, kind: str):
        self._place, self._kind = place, kind
        self._done: dict[str, Picture] = {}
        self._read = lru_cache(HELD)(lambda index, view: index.scene.views[view].picture())

    def marked(self, index: SceneIndex, view: int, marks: Sequence[Mark] = ()) -> Picture:
        """A view with marks, whichever of a question's pictures it is."""
        marks = [replace(mark, picture=0) for mark in marks]
        name = self._name(index, view, repr(marks) if marks else "")
        if name not in self._done:
            picture = self._read(index, view)
            self._add(name, draw(picture, index, view, marks) if marks else picture)
        return self._done[name]

    def boxed(self, index: SceneIndex, view: int, box: tuple[int, int, int, int]) -> Picture:
        """A view with the red box of a move."""
        name = self._name(index, view, f"red {box}")
        if name not in self._done:
            self._add(name, draw_box(self._read(index, view), box))
        return self._done[name]

    def _name(self, index: SceneIndex, view: int, drawn: str) -> str:
        state = hashlib.sha256(index.scene.name.encode(errors="surrogatepass")).hexdigest()[:6]
        digest = f"-{hashlib.sha256(drawn.encode()).hexdigest()[:12]}" if drawn else ""
        return f"{self._place:07d}/{state}-{view:03d}{digest}{SUFFIXES[self._kind]}"

    def _add(self, name: str, picture: Image.Image) -> None:
        self._done[name] = Picture(name, encoded(picture, self._kind))


def _index(scene: Scene, settings: Making, prepare: Prepare | None) -> SceneIndex:
    scene = scene.with_views(settings.views)
    if prepare is not None:
        scene = prepare(scene)
    if settings.lift and not scene.lifted:
        lifted = lift(scene)
        if told := unlifted(lifted):
            raise JoyImageError(f"{where(scene)}: {told}")
        scene = lifted.scene
    return index_scene(scene)


def _unnamed(index: SceneIndex, settings: Making, words: Translations) -> tuple[str, ...]:
    """The categories for which a table has no word in a language that is asked in."""
    labels = sorted({thing.category for thing in index.things}) if words and settings.tasks else []
    return tuple(label for label in labels if not all(words.word(label, each) for each in settings.languages))


def _samples(index: SceneIndex, album: Album, place: int, settings: Making) -> Iterator[Sample]:
    translations = settings.translations or {}
    asking = Asking(settings.seed, tuple(settings.languages), settings.marked, translations=translations)
    questions = make_questions(index, dict.fromkeys(settings.tasks, settings.quota), asking, place)
    for number, question in enumerate(questions):
        pictures = [
            album.marked(index, view, [mark for mark in question.marks if mark.picture == k])
            for k, view in enumerate(question.views)
        ]
        yield Sample(
            id=f"{place:07d}-{number:04d}",
            scene=index.scene.name,
            source=index.scene.source,
            pictures=tuple(pictures),
            shown=tuple(_shown(index, view) for view in question.views),
            turns=(_turn(question),),
        )


def _turn(question: Question) -> Turn:
    return Turn(
        task=question.task,
        form=question.form,
        language=question.language,
        text=question.text,
        answer=question.answer,
        stem=question.stem,
        options=question.options,
        sides=tuple((kind, value) for _, kind, value in sides(question)),
    )


def _shown(index: SceneIndex, view: int) -> Shown:
    camera, name = index.scene.views[view].camera, index.scene.views[view].name
    (fx, _, cx), (_, fy, cy), _ = camera.intrinsic.tolist()
    return Shown(name, (camera.width, camera.height), (fx, fy, cx, cy))


def _camera_pairs(index: SceneIndex, album: Album, place: int, settings: Making) -> Iterator[Pair]:
    if "camera" not in settings.edits:
        return
    for number, pair in enumerate(camera_pairs(index, settings.quota, settings.seed)):
        pictures = album.marked(index, pair.first), album.marked(index, pair.second)
        views = index.scene.views[pair.first].name, index.scene.views[pair.second].name
        yield Pair(f"{place:07d}-camera-{number:04d}", "camera", pair.scene, pair.text, *pictures, views)


def _object_pairs(before: SceneIndex, after: SceneIndex, album: Album, place: int, settings: Making) -> Iterator[Pair]:
    """Both ways round: what has moved there can be moved back."""
    states = {True: (before, after), False: (after, before)}
    found = [(there, pair) for there in states for pair in object_pairs(*states[there])]
    random.Random(f"{settings.seed}/edits/{place}/{after.scene.name}").shuffle(found)
    for kind in ("move", "rotate"):
        chosen = [each for each in found if _kind(each[1]) == kind and kind in settings.edits]
        for number, (there, pair) in enumerate(chosen[: settings.quota]):
            source, target = states[there]
            given = album.marked(source, pair.view) if pair.box is None else album.boxed(source, pair.view, pair.box)
            name = source.scene.views[pair.view].name
            key, scene = f"{place:07d}-{kind}-{number:04d}", after.scene.name
            yield Pair(key, kind, scene, pair.text, given, album.marked(target, pair.view), (name, name), pair.box)


def _kind(pair: CameraPair | ObjectPair) -> str:
    return "move" if isinstance(pair.instruction, Move) else "rotate"
