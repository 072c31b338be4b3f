"""One reader for the forms in which people keep their training sets. A further form is one more row of `FILES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import JoyImageError, MissingFileError
from ..examples import Example
from .configs import read_toml, read_yaml
from .folders import pictures_in, read_folders
from .tables import read_csv, read_json, read_jsonl
from .tars import read_tar

# the file, the folder in which its relative paths begin, the caption of what has none
Reader = Callable[[Path, Path, str], list[Example]]
FILES: dict[str, Reader] = {
    ".csv": read_csv,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".toml": read_toml,
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".tar": read_tar,
}
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.json")
KNOWN = (
    "a folder of pictures with .txt captions, with folders of the pictures that they come from (ai-toolkit, "
    "diffusion-pipe), musubi-tuner's TOML or JSONL, DiffSynth's metadata.csv, ai-toolkit's YAML, or tars with "
    "stem.json, stem.0.jpg and stem.1.jpg"
)


def read(
    source: str | Path,
    controls: Sequence[str | Path] = (),
    masks: str | Path | None = None,
    *,
    default_caption: str = "",
    caption_extension: str = ".txt",
    base: str | Path | None = None,
) -> list[Example]:
    """The examples of a training set, whatever its form; no picture is opened.

    `source` is a folder of targets, with one to six folders of `controls` and one of `masks` where names go together
    without suffixes (none of `controls`: text to image); a folder with a `metadata.csv`, or with tars; or a file:
    see `KNOWN`. `default_caption` is for pictures without one. Paths in a file begin at `base`, its own folder if None.
    Raises `MissingFileError` for what does not exist, and `JoyImageError` for a form that is not known, naming what
    was looked for.
    """
    source = Path(source).expanduser()
    folders = [Path(folder).expanduser() for folder in controls]
    shown = None if masks is None else Path(masks).expanduser()
    if not source.exists():
        raise MissingFileError(f"{source} does not exist")
    if source.is_dir():
        if folders or shown or not (file := _described_by(source)):
            return _folder(source, folders, shown, default_caption, caption_extension)
        source = file
    if folders or shown:
        raise JoyImageError(f"{source}: a file names its own pictures; leave out the folders of controls and masks")
    reader = FILES.get(source.suffix.lower())
    if reader is None:
        raise JoyImageError(f"{source}: is no training set of a known form; looked for {KNOWN}")
    return reader(source, source.parent if base is None else Path(base).expanduser(), default_caption)


def _described_by(folder: Path) -> Path | None:
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def _folder(
    source: Path, controls: list[Path], masks: Path | None, default_caption: str, caption_extension: str
) -> list[Example]:
    if pictures_in(source):
        return read_folders(
            source, controls, masks, default_caption=default_caption, caption_extension=caption_extension
        )
    tars = sorted(source.rglob("*.tar"))
    if controls or masks or not tars:
        raise JoyImageError(f"{source}: holds no pictures and no training set of a known form; looked for {KNOWN}")
    return [example for tar in tars for example in read_tar(tar, source, default_caption)]
