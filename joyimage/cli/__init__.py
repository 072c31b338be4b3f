"""The command line: `joyimage edit | generate | ask | rewrite | inspect | convert | plan | download | demo`."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..errors import JoyImageError
from .options import build_parser

PACKAGE = Path(__file__).parents[1]
OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 input that cannot be used, 130 interrupted."""
    options = build_parser().parse_args(argv)
    warnings.showwarning = _note
    try:
        options.run(options)
        return OK
    except KeyboardInterrupt as stop:
        print(f"joyimage: interrupted; {str(stop) or 'nothing half-written is left'}", file=sys.stderr)
        return INTERRUPTED
    except (JoyImageError, OSError) as error:
        return _report(error, str(error), BAD_INPUT, options.debug)
    except Exception as error:  # the last resort of a program: one line for people, the traceback with --debug
        message = f"{type(error).__name__}: {error} (run again with --debug for the traceback)"
        return _report(error, message, FAILED, options.debug)


def _note(message, category, filename, *_args, **_options) -> None:
    """Say what the library warns of; what others warn of is for those who program with them."""
    if PACKAGE in Path(filename).parents:
        print(f"joyimage: note: {message}", file=sys.stderr)


def _report(error: Exception, message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"joyimage: error: {' '.join(message.split())}", file=sys.stderr)
    return code
