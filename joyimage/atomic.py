"""Files that are written whole or not at all, and what killed processes have left of theirs.

A file is written under a hidden name and gets its own when it is complete. Until then its process holds it locked
(open, on Windows, where that alone keeps others from removing it). A hidden one that nobody holds is of a process that
was killed; whoever writes in the same folder next removes it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from .errors import JoyImageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PREFIX, SUFFIX = ".joyimage-", ".part"


class Part:
    """A file to be, as a context: write to `path`, then `publish`. What was not published is removed.

    Raises `OSError` where the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder

    def __enter__(self) -> Part:
        remove_abandoned(self.folder)
        while True:
            self.path = self.folder / f"{PREFIX}{uuid4().hex}{SUFFIX}"
            self._held = self.path.open("xb")
            try:
                if _lock(self._held.fileno()) and self.path.exists():
                    return self
            except OSError:  # a file system without locks, where nobody takes anything for abandoned
                return self
            self._held.close()  # another took it for abandoned, in between

    def publish(self, names: Iterable[Path], replace: bool) -> Path:
        """Give the file a name and return it: the first, replacing what is there, or the first that is free.

        Raises `OSError` if the system refuses, `JoyImageError` if no name is free.
        """
        if fcntl is None:
            self._held.close()  # Windows renames no open file
        for name in names:
            if replace:
                os.replace(self.path, name)
            elif not _move_to_new(self.path, name):
                continue
            return name
        raise JoyImageError(f"no name is free for the file in {self.folder}")

    def __exit__(self, *_error) -> None:
        if fcntl is None:
            self._held.close()
        self.path.unlink(missing_ok=True)
        self._held.close()


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes have left in a folder. What may be a living one's, or cannot be removed, stays."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            if fcntl is None:
                file.close()
            if _lock(file.fileno() if fcntl else -1):
                path.unlink()


def _lock(descriptor: int) -> bool:
    """Hold an open file, or say that another process does. Raises `OSError` where there are no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _move_to_new(path: Path, name: Path) -> bool:
    """Rename a file unless there is one of the new name, whoever makes one at the same moment."""
    try:
        os.link(path, name)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            name.open("xb").close()
        except FileExistsError:
            return False
        os.replace(path, name)
        return True
    path.unlink()
    return True
