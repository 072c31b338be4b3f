"""Where pictures go, and writing them there with their parameters inside."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

from .. import __version__
from ..errors import JoyImageError


def is_file(text: str) -> bool:
    """Whether a file of this name is there. Texts that are no possible name, such as long questions, are not."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name; a byte 0 in it
        return False


def output_paths(output: Path | None, stem: str, count: int) -> list[Path]:
    """Where the pictures will go, settled before the model runs.

    A file named on the command line is replaced, one named by us never is. Folders are made.
    """
    if output is not None and output.suffix and output.suffix.lower() != ".png" and not output.is_dir():
        raise JoyImageError(f"pictures are saved as PNG; name {output.with_suffix('.png')} or a folder")
    if output is not None and output.suffix and not output.is_dir():
        _make_folder(output.parent)
        return [output] if count == 1 else [output.with_stem(f"{output.stem}-{i + 1}") for i in range(count)]
    folder = output or Path()
    _make_folder(folder)
    names = (f"{stem}.png" if n == 1 else f"{stem}-{n}.png" for n in itertools.count(1))
    return list(itertools.islice((folder / name for name in names if not (folder / name).exists()), count))


def _make_folder(folder: Path) -> None:
    """Raise `JoyImageError` if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise JoyImageError(f"nothing can be written into {folder}: {reason}; name another with --output") from None


def save(
    options,
    model: str,
    results: list,
    paths: list[Path],
    prompts: list[str],
    images: list[list[str]],
    parameters: dict,
    seconds: float,
) -> None:
    """Write the pictures with their parameters inside, and say where they are."""
    from ..images import save_png

    pictures = []
    for i, (picture, path) in enumerate(zip(results, paths, strict=True)):
        edit, k = divmod(i, options.count)
        details = {
            **parameters,
            "prompt": prompts[edit % len(prompts)],
            "images": images[edit % len(images)],
            "seed": options.seed + k,
            "size": [picture.height, picture.width],
            "model": model,
            "version": __version__,
            **({"loras": [[path, strength] for path, strength in options.lora]} if options.lora else {}),
        }
        del details["count"]
        save_png(picture, path, details)
        pictures.append({"path": str(path), **details})
        if not options.json:
            print(path)
    if options.json:
        print(json.dumps({"pictures": pictures, "seconds": round(seconds, 3)}, indent=2))
