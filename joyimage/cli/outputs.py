"""Where pictures go, and writing them there with their parameters inside."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..atomic import check_name
from ..boxes import PixelBox, draw_box
from ..errors import JoyImageError
from ..parameters import LORAS, NETWORKS, made_by

if TYPE_CHECKING:
    from PIL.Image import Image


def is_file(text: str) -> bool:
    """Whether a file of this name is there. Texts that are no possible name, such as long questions, are not."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name; a byte 0 in it
        return False


@dataclass(frozen=True)
class Names:
    """Where pictures go, settled before the model runs; folders are made.

    A file that was named on the command line is replaced. One that we name never is, even if another process makes it
    while the model runs: such a picture takes the next name.
    Raises `JoyImageError` for a name that no picture can have or that a file which is read has, and for a folder that
    cannot be written.
    """

    given: tuple[Path, ...]
    ours: tuple[Iterator[Path], ...]  # for each picture the names that are left for it

    @classmethod
    def of(cls, output: Path | None, stems: Sequence[str], read: Sequence[str | Path] = ()) -> Names:
        """For one picture of each stem; where a folder or nothing was named, they have these names and numbers.

        `read` are the files that these pictures must not replace.
        """
        check_name(output or Path())
        if output is not None and output.suffix and output.suffix.lower() != ".png" and not output.is_dir():
            raise JoyImageError(f"pictures are saved as PNG; name {output.with_suffix('.png')} or a folder")
        if output is not None and output.suffix and not output.is_dir():
            make_folder(output.parent)
            several = (output.with_stem(f"{output.stem}-{i + 1}") for i in range(len(stems)))
            given = (output,) if len(stems) == 1 else tuple(several)
            _check_unread(given, read)
            return cls(given, ())
        folder = output or Path()
        make_folder(folder)
        numbered = {stem: _numbered(folder, stem) for stem in stems}
        return cls((), tuple(numbered[stem] for stem in stems))

    def save(self, i: int, picture: Image, details: dict) -> Path:
        """Write picture `i` with its parameters inside and return where it is."""
        from ..images import save_png

        if self.given:
            return save_png(picture, self.given[i], details)
        return save_png(picture, next(self.ours[i]), details, otherwise=self.ours[i])


def _check_unread(given: Sequence[Path], read: Sequence[str | Path]) -> None:
    """Raise `JoyImageError` for a name that one of the files `read` has, whatever it is called there."""
    for path in given:
        for file in read:
            if path.exists() and path.samefile(file):
                raise JoyImageError(f"{path} is read, so it is not replaced: name another file or a folder")


def _numbered(folder: Path, stem: str) -> Iterator[Path]:
    """stem.png, stem-2.png, stem-3.png …"""
    yield folder / f"{stem}.png"
    yield from (folder / f"{stem}-{n}.png" for n in itertools.count(2))


def make_folder(folder: Path) -> None:
    """Raise `JoyImageError` if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise JoyImageError(f"nothing can be written into {folder}: {reason}; name another") from None


def save(
    options,
    model: str,
    results: list,
    names: Names,
    prompts: list[str],
    images: list[list[str]],
    parameters: dict,
    seconds: float,
) -> None:
    """Write the pictures with their parameters inside, and say where they are."""
    pictures = []
    for i, picture in enumerate(results):
        edit, k = divmod(i, options.count)
        details = made_by(
            picture,
            parameters,
            prompt=prompts[edit % len(prompts)],
            images=images[edit % len(images)],
            seed=options.seed + k,
            model=model,
            networks=networks_told(options),
        )
        path = names.save(i, picture, details)
        pictures.append({"path": str(path), **details})
        if not options.json:
            print(path)
    if options.json:
        print(json.dumps({"pictures": pictures, "seconds": round(seconds, 3)}, indent=2))


def box_names(options) -> dict[str, Names]:
    """Where `locate` writes its mask and its drawing, as far as they are wanted. Errors as for `Names`."""
    wanted = {"mask": options.mask, "draw": options.draw}
    if options.mask is not None and options.mask == options.draw and not options.mask.is_dir():
        raise JoyImageError(f"--mask and --draw both name {options.mask}; give each a file of its own")
    stem = Path(options.image).stem
    read = [options.image]
    return {kind: Names.of(path, [f"{stem}-{kind}"], read) for kind, path in wanted.items() if path is not None}


def save_boxes(options, model: str, picture: Image, boxes: list[PixelBox], names: dict[str, Names]) -> None:
    """Print what `locate` found, each box as --box takes it; write the mask and the drawing, and say where they are."""
    found = {"object": options.object, "boxes": [list(box) for box in boxes]}
    details = {
        **found,
        "images": [Path(options.image).name],
        "size": [picture.height, picture.width],
        "model": model,
        "version": __version__,
        **networks_told(options),
    }
    makers = {"mask": lambda: _mask(picture, boxes), "draw": lambda: reduce(draw_box, boxes, picture)}
    paths = {kind: str(place.save(0, makers[kind](), details)) for kind, place in names.items()}
    if options.json:
        print(json.dumps({"image": options.image, **found, **paths}))
        return
    print("\n".join(",".join(map(str, box)) for box in boxes))
    for path in paths.values():
        print(path, file=sys.stderr)  # apart from the boxes, which another command may read


def _mask(picture: Image, boxes: list[PixelBox]) -> Image:
    """As large as the picture, white inside the boxes and black elsewhere."""
    from PIL.Image import new

    mask = new("L", picture.size)
    for box in boxes:
        mask.paste(255, box)
    return mask


def networks_told(options) -> dict:
    """How the networks computed, where that changes results and is not the default."""
    given = {name: getattr(options, name, value) for name, value in NETWORKS.items()}
    loras = [[path, strength] for path, strength in options.lora]
    return {
        **{name: value for name, value in given.items() if value != NETWORKS[name]},
        **({LORAS: loras} if loras else {}),
    }
