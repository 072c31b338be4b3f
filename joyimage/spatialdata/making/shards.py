"""What one scene gives, in a file: records and the pictures that they name. A shard is complete or not there."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from ...atomic import Part
from ..records import Batch, Picture, as_dict, batch_of

FOLDER = "shards"
EACH = 1000  # shards in a folder: looking for what killed processes left takes longer the more there are
RECORDS = "records.json"
MOMENT = (1980, 1, 1, 0, 0, 0)  # of all members, the first that the format can say, so that equal shards are equal


def shard_path(out: Path, place: int) -> Path:
    """Where the shard of a scene is, by its number among all."""
    return out / FOLDER / f"{place // EACH:04d}" / f"{place:07d}.zip"


def count_shards(out: Path) -> int:
    """How many scenes are done."""
    return sum(1 for _ in (out / FOLDER).glob("*/[0-9]*.zip"))


def write_shard(path: Path, batch: Batch) -> Path:
    """Raises `OSError` where nothing can be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Part(path.parent) as part:
        with zipfile.ZipFile(part.path, "w") as file:  # stored: pictures are compressed already
            text = json.dumps(as_dict(batch), ensure_ascii=False)
            file.writestr(zipfile.ZipInfo(RECORDS, MOMENT), text)
            for picture in batch.pictures():
                file.writestr(zipfile.ZipInfo(picture.name, MOMENT), picture.content)
        return part.publish([path], replace=True)


def read_shard(path: Path) -> Batch | None:
    """None where there is none, or it is damaged: then it is to be made again."""
    try:
        with zipfile.ZipFile(path) as file:
            names = set(file.namelist()) - {RECORDS}
            pictures = {name: Picture(name, file.read(name)) for name in names}
            return batch_of(json.loads(file.read(RECORDS)), pictures)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError):
        return None
