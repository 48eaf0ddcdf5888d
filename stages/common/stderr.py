"""The standard error output while a library writes notices there that nobody asked for."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

# a process of its own, since C++ code that aborts leaves no time to show what was held back
GUARD = r"""
import os, re, sys
if not sys.stdin.read(1):
    held = os.pread(1, os.fstat(1).st_size, 0)
    os.write(2, re.sub(rb"(?m)^(I\d{4} |WARNING: All log messages before ).*\n", b"", held))
"""


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr; show it only if the block fails or the process dies in it.

    TensorFlow reports on its build and on missing GPUs there, whatever the logging level.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        command = [sys.executable, "-I", "-S", "-c", GUARD]
        guard = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=held,
            start_new_session=True,  # Ctrl-C is for this process only
        )
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            guard.communicate(b".")  # whatever is to be shown is shown
