"""How a stage fails: one line on stderr that says what is wrong and what would be right, exit code 1."""

import sys
from collections.abc import Callable


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
        fail(f"{error.filename or 'the system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        fail("interrupted; whole epochs are kept, `dvc repro` goes on after the last one", code=130)


def fail(message: str, code: int = 1) -> None:
    """Print one line to stderr and exit."""
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    sys.exit(code)
