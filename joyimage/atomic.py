"""Files that are written whole or not at all, and what killed processes have left of theirs.

A file is written under a hidden name and gets its own when it is complete. Until then its process holds it locked
(open, on Windows, where that alone keeps others from removing it). A hidden one that nobody holds is of a process that
was killed; whoever writes in the same folder next removes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path, PureWindowsPath
from uuid import uuid4

from .errors import JoyImageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PREFIX, SUFFIX = ".joyimage-", ".part"
# Seconds before each further try to replace a file on Windows, where whoever looks at it forbids that: scanners for
# viruses do for a moment.
PAUSES = (0.1, 0.4, 1.5)
# What no file on Windows is called, with any suffix or none: devices, and names that it would cut or take apart.
DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$')


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

        Raises `OSError` if the system refuses, `JoyImageError` if no name is free or the file of that name is in use.
        """
        if fcntl is None:
            self._held.close()  # Windows renames no open file
        for name in names:
            if replace:
                replace_file(self.path, name)
            elif not _move_to_new(self.path, name):
                continue
            return name
        raise JoyImageError(f"no name is free for the file in {self.folder}")

    def __exit__(self, *_error) -> None:
        if fcntl is None:
            self._held.close()
        self.path.unlink(missing_ok=True)
        self._held.close()


def check_name(path: Path) -> None:
    """Raise `JoyImageError` for a name that Windows takes for a device, or cuts or takes apart, if this is Windows."""
    if fcntl is None and (refused := windows_refuses(PureWindowsPath(path))):
        raise JoyImageError(f"{path}: Windows has no files or folders named {refused}; give another name")


def windows_refuses(path: PureWindowsPath) -> str | None:
    """The first part of a path that no file or folder on Windows can be called."""
    parts = (part for part in path.parts if part not in (path.anchor, ".."))
    return next((part for part in parts if DEVICES.fullmatch(part) or FORBIDDEN.search(part)), None)


@contextlib.contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for `what`, which one at a time may be at work in, as long as the context lasts.

    Raises `JoyImageError` where another holds it. On Windows, and on file systems without locks, nobody is kept out.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            if not _lock(descriptor):
                raise JoyImageError(f"{folder}: another {what} is at work there; wait for its end, or name another")
        yield
    finally:
        os.close(descriptor)


def replace_file(path: Path, name: Path) -> None:
    """Rename a file over another. Raises `JoyImageError` where that one is in use, as Windows says of what is open."""
    for pause in (*PAUSES, None) if fcntl is None else (None,):
        try:
            os.replace(path, name)
            return
        except PermissionError as error:
            if pause is None:
                raise JoyImageError(
                    f"{name}: cannot be replaced ({error.strerror or error}): it may be open in another program, or a "
                    "model that is loaded; close that, or give another name"
                ) from error
            time.sleep(pause)


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
        try:
            replace_file(path, name)
        except BaseException:
            name.unlink()  # it is empty, and of this call
            raise
        return True
    path.unlink()
    return True
