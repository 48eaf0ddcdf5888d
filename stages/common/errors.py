"""Errors that the user can correct: one line on stderr, exit code 1, no traceback."""

import errno
import io
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

RESUME = ", then `dvc repro` resumes"
HINTS = {
    errno.ENOSPC: f"; free some space{RESUME}",
    errno.EDQUOT: f"; free some space{RESUME}",
    errno.EROFS: f"; make it writable{RESUME}",
    errno.EACCES: f"; make it accessible{RESUME}",
}


class StageError(Exception):
    """An error that the user can correct. Its text is the one line that they see."""


def run_stage(main: Callable[[], None]) -> None:
    """Run the `main` function of a stage or command.

    A `StageError`, an `OSError` (full disk, read-only folder), a lack of memory and Ctrl-C become one line
    on stderr. Any other exception is a bug and keeps its traceback. A character that the terminal's
    encoding lacks is printed as an escape.

    Args:
        main: the function to run.
    """
    _open_what_is_closed()
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")
    try:
        main()
    except StageError as error:
        fail(str(error))
    except BrokenPipeError:  # the reader of a pipe has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        hint = HINTS.get(error.errno or 0, "")
        fail(f"{error.filename or 'the system'}: {error.strerror or error}{hint}")
    except MemoryError as error:
        fail(f"out of memory{f': {error}' if str(error) else ''}")
    except Exception as error:
        if type(error).__name__ != "ResourceExhaustedError":  # TensorFlow's, which is imported late
            raise
        fail(f"out of memory: {str(error)[:200]}")
    except KeyboardInterrupt:
        fail("interrupted; `dvc repro` resumes after the last finished epoch", code=130)


def _open_what_is_closed() -> None:
    """Let standard files that the caller has closed lead nowhere, so that no other file gets their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _without_traceback(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print one line for Ctrl-C while modules are still imported, where `run_stage` cannot see it."""
    if issubclass(kind, KeyboardInterrupt):
        print("error: interrupted", file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _without_traceback


def fail(message: str, code: int = 1) -> NoReturn:
    """Print one line to stderr and exit.

    Args:
        message: the text; line breaks in it become spaces.
        code: the exit code.

    Raises:
        SystemExit: always.
    """
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    sys.exit(code)
