"""Scenes in each format that scans come in, and damage to their fields, texts, tables and pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from joyimage.errors import JoyImageError
from joyimage.spatialdata.cameras import Pinhole, looking_at
from joyimage.spatialdata.oriented import OrientedBox
from joyimage.spatialdata.readers import find_scenes, scene_places
from tests.scans import WRITERS, Thing, shoot

from .mutations import damage_bytes, damage_json, damage_value
from .pictures import damage_picture

WIDTH, HEIGHT = 24, 18
THINGS = (
    Thing("chair", OrientedBox.upright([0, 0, 0.5], [0.8, 0.8, 1])),
    Thing("table", OrientedBox.upright([1, 0.5, 0.3], [1, 0.6, 0.6], 0.4)),
)
EYES = ((0, -3, 1.5), (2.5, -1, 1.2))
TEXTS = (".txt", ".traj", ".pincam")
PICTURES = (".png", ".jpg")
WORDS = (
    "nan", "inf", "-inf", "1e400", "1e300", "-1", "0", "1", "abc", "0x10", "1_0", "1,5", "1" * 5000, "\0", "\x1b[2J",
    "é", "\u202e", "#", "=", "",
)  # fmt: skip
RAW = re.compile(
    r"\w(Error|Exception)\b|\[Errno|Traceback|<class|object at 0x"
)  # of an error that was not put into words


def write(folder: Path, form: str) -> None:
    (folder / "room").mkdir()
    intrinsic = np.array([[20, 0, WIDTH / 2], [0, 20, HEIGHT / 2], [0, 0, 1]])
    cameras = [Pinhole(intrinsic, looking_at(np.array(eye), np.array([0, 0, 0.4])), WIDTH, HEIGHT) for eye in EYES]
    WRITERS[form](folder / "room", [shoot(camera, THINGS) for camera in cameras], THINGS)


def read(path: Path) -> None:
    """Read the scenes of a folder with all that they name. Raises the first `JoyImageError`."""
    try:
        for found in find_scenes(scene_places(path)):
            for view in found.read().views:
                view.picture()
                view.sensed()
    except JoyImageError as error:
        if RAW.search(str(error)):
            raise AssertionError(f"an error in no words of its own: {error}") from error
        raise


def damage(folder: Path, random: Random, names: Callable[[Path, Random], None]) -> Path:
    """Damage one to three of a scene's files, or their names."""
    scene = folder / "room"
    files = sorted(path for path in scene.rglob("*") if path.is_file())
    for _ in range(random.randint(1, 3)):
        kind = random.choice(sorted({path.suffix for path in files}))
        path = random.choice([path for path in files if path.suffix == kind])
        path.write_bytes(_damages(kind)(path.read_bytes(), random))
        files.remove(path)  # what is damaged may be nothing that can be damaged by its fields
        if not files:
            break
    if random.random() < 0.2:
        names(scene, random)
    return scene


def _damages(suffix: str) -> Callable[[bytes, Random], bytes]:
    if suffix in PICTURES:
        return damage_image
    return {".json": damage_json, ".parquet": damage_table}.get(
        suffix, damage_text if suffix in TEXTS else damage_bytes
    )


def damage_text(data: bytes, random: Random) -> bytes:
    """Words of a text replaced, lines dropped, doubled or cut, another encoding."""
    lines = [line.split(" ") for line in data.decode(errors="replace").split("\n")]
    for _ in range(random.randint(1, 3)):
        at, way = random.randrange(len(lines)), random.randrange(4)
        words = lines[at]
        if way == 0:
            words[random.randrange(len(words))] = random.choice(WORDS)
        else:
            lines[at : at + 1] = ([], [words, words], [words[:-1] or [""]])[way - 1]
        lines = lines or [[""]]
    encoding = random.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "latin-1", "utf-32"))
    return "\n".join(map(" ".join, lines)).encode(encoding, errors="replace")


def damage_table(data: bytes, random: Random) -> bytes:
    """Values of rows that PyArrow can write again; else bytes."""
    import pyarrow
    from pyarrow import parquet

    if random.random() < 0.7:
        rows = parquet.read_table(io.BytesIO(data)).to_pylist()
        changed = damage_value(rows, random)
        held = io.BytesIO()
        try:
            parquet.write_table(pyarrow.Table.from_pylist(changed), held)
            return held.getvalue()
        except Exception:  # what is no table: any type of error
            pass
    return damage_bytes(data, random)


def damage_image(data: bytes, random: Random) -> bytes:
    """Other pictures in its place as often as damaged bytes."""
    if random.random() < 0.5:
        return damage_picture(data, random)
    mode = random.choice(("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I", "F"))
    size = random.choice(((WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT), (HEIGHT, WIDTH), (WIDTH, 1), (1, 1), (1, 300)))
    picture = Image.radial_gradient("L").resize(size)
    picture = picture.convert("RGB").convert(mode) if mode in ("RGB", "RGBA", "P") else picture.convert(mode)
    held = io.BytesIO()
    picture.save(held, "TIFF" if mode in "IF" else "PNG")
    return held.getvalue()


def kinds_of(names: Callable[[Path, Random], None]) -> dict[str, tuple[Callable, Callable]]:
    """By kind, what writes a scene and what damages it. `names` damages where files lie."""
    return {f"scene {form}": (partial(write, form=form), partial(damage, names=names)) for form in WRITERS}
