"""How a stage fails: one line on stderr that says what is wrong and what would be right, exit code 1."""

import errno
import sys
from collections.abc import Callable

HINTS = {
    errno.ENOSPC: "; free some space, then `dvc repro` goes on where it stopped",
    errno.EDQUOT: "; free some space, then `dvc repro` goes on where it stopped",
    errno.EROFS: "; make it writable, then `dvc repro` goes on where it stopped",
    errno.EACCES: "; make it accessible, then `dvc repro` goes on where it stopped",
}


class StageError(Exception):
    """Something the user can put right; its text is the one line they see."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; turn what the user can put right into one line and exit code 1.

    A full disk, a read-only folder and an interrupted run are the user's to put right too. Anything
    else is a bug of ours and keeps its traceback.
    """
    try:
        main()
    except StageError as error:
        fail(str(error))
    except OSError as error:
        hint = HINTS.get(error.errno or 0, "")
        fail(f"{error.filename or 'the system'}: {error.strerror or error}{hint}")
    except KeyboardInterrupt:
        fail("interrupted; whole epochs are kept, `dvc repro` goes on after the last one", code=130)


def fail(message: str, code: int = 1) -> None:
    """Print one line to stderr and exit."""
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    sys.exit(code)
