"""The command line, `joyimage COMMAND`; `options` has the commands, and each is a function `run_...` of its module."""

from __future__ import annotations

import argparse
import codecs
import gc
import io
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import JoyImageError, shortened
from ..wishes import NearMiss
from .options import build_parser
from .spatial_edits import spatial_options

PACKAGE = Path(__file__).parents[1]
OK, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
# New objects until Python's collector looks for cycles among them, and how often it does until it looks among older and
# all (700, 10, 10 by default). Imports make a million objects that stay: to look through them over and over took a
# fifth of the processor time of a small edit.
COLLECTION = (100_000, 50, 50)
__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 input that cannot be used, 130 interrupted, 143
    ended by SIGTERM.
    """
    if argv is not None:
        return _run(build_parser().parse_args(argv))
    with _own_process():
        return _run(build_parser().parse_args())


@contextmanager
def _own_process() -> Iterator[None]:
    """What is set for the whole process, where it runs one command and no more."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("joyimage", _escaped)
        sys.stdout.reconfigure(errors="joyimage")
    gc.set_threshold(*COLLECTION)
    try:
        yield
    finally:
        gc.freeze()  # or the interpreter looks through it all twice before it ends


def _run(options: argparse.Namespace) -> int:
    warnings.showwarning = _note
    try:
        with _stopped_by_sigterm():
            return options.run(options) or OK
    except KeyboardInterrupt as stop:
        print(f"joyimage: interrupted; {str(stop) or 'nothing half-written is left'}", file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except (JoyImageError, OSError) as error:
        return _report(error, str(error), BAD_INPUT, options.debug)
    except Exception as error:  # the last resort of a program: one line for people, the traceback with --debug
        message = f"{type(error).__name__}: {error} (run again with --debug for the traceback)"
        return _report(error, message, FAILED, options.debug)


def _escaped(error: UnicodeError) -> tuple[bytes, int]:
    """What the output's encoding lacks: bytes of a file's name as they are, all else as \\u2192.

    Elsewhere than on a terminal Windows writes its code page, in which there is hardly any of what models answer.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    ours = (bytes([ord(sign) & 0xFF]) if "\udc80" <= sign <= "\udcff" else None for sign in signs)
    shown = (own or sign.encode("ascii", "backslashreplace") for own, sign in zip(ours, signs, strict=True))
    return b"".join(shown), error.end


class Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers and shutdowns send: handled as Ctrl-C is, so that what is half-written is removed."""


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return

    def stop(*_) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _note(message, category, filename, *_args, **_options) -> None:
    """Say what the library warns of; what others warn of is for those who program with them."""
    if PACKAGE in Path(filename).parents:
        print(f"joyimage: note: {shortened(str(message))}", file=sys.stderr)
        if isinstance(message, NearMiss) and message.instruction:
            print(f"joyimage: note: in its place: {spatial_options(message.instruction)}", file=sys.stderr)


def _report(error: Exception, message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"joyimage: error: {shortened(' '.join(message.split()))}", file=sys.stderr)
    return code
