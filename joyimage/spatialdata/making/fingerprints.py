"""What a scene's shard was made of, in short, so that a scene that has changed since is done again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .work import Job

PLACE = "file"  # of a scene: where it was read, which may be the same place in other words


def fingerprint(job: Job, views: int) -> str:
    """Of a scene with so many views at most, and of the state before it. Files count by name, size and time."""
    digest = hashlib.sha256()
    for scene in (job.scene, job.before):
        for part in _parts(scene and scene.with_views(views)):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:32]


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, Path):
        yield repr((value.name, _status(value))).encode()
    elif isinstance(value, np.ndarray):
        yield repr((value.shape, value.dtype.str)).encode()
        yield value.tobytes()
    elif isinstance(value, Image.Image):
        yield repr((value.size, value.mode)).encode()
        yield value.tobytes()
    elif is_dataclass(value):
        for field in fields(value):
            if field.name != PLACE:
                yield from _parts(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from _parts(tuple(value.items()))
    elif isinstance(value, tuple | list):
        yield str(len(value)).encode()
        for each in value:
            yield from _parts(each)
    else:
        yield repr(value).encode()


def _status(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # it is not there, which its reader tells
        return None
    return status.st_size, status.st_mtime_ns
