"""Errors that the user can correct: one line, and no traceback."""

import signal
import subprocess
import sys

import pytest

from tests.support import ROOT


def run(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a `main` function in a process of its own."""
    code = f"from stages.common.errors import StageError, run_stage\ndef main():\n    {body}\nrun_stage(main)"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("raise StageError('it is\\nwrong')", 1, "error: it is wrong"),
        ("open('nowhere/file')", 1, "error: nowhere/file: No such file or directory"),
        (
            "raise OSError(28, 'No space left', 'disk')",
            1,
            "error: disk: No space left; free some space, then",
        ),
        (
            "import numpy; numpy.zeros(2**60, numpy.uint8)",
            1,
            "error: out of memory: Unable to allocate 1.00 EiB for an array",
        ),
        ("raise MemoryError", 1, "error: out of memory\n"),
        (
            "raise type('ResourceExhaustedError', (Exception,), {})('no\\nmore')",  # TensorFlow's
            1,
            "error: out of memory: no more\n",
        ),
        ("raise KeyboardInterrupt", 130, "error: interrupted; `dvc repro` resumes after"),
    ],
)
def test_what_the_user_can_correct_is_one_line(body, code, line):
    done = run(body)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith(line)


@pytest.mark.parametrize(
    ("closed", "shown"), [("<&-", "to True"), (">&-", None), ("2>&-", "to True"), ("<&- >&- 2>&-", None)]
)
def test_a_standard_file_that_is_closed_leads_nowhere(tmp_path, closed, shown):
    """Otherwise the next file that is opened gets its number, and messages are written into it."""
    body = "import os, sys; f = open(sys.argv[1], 'w'); print('to', f.fileno() > 2); os.write(2, b'lost')"
    code = f"from stages.common.errors import run_stage\ndef main():\n    {body}\nrun_stage(main)"
    script = f'exec "$0" -c "$1" "$2" {closed}'
    command = ["sh", "-c", script, sys.executable, code, tmp_path / "file"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == ("" if shown is None else f"{shown}\n")
    assert (tmp_path / "file").read_text() == ""


def test_a_bug_keeps_its_traceback():
    done = run("1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_character_that_the_terminal_lacks_is_no_error(encoding):
    done = run(r"print('\u0436'); raise StageError('\u0436')", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout, done.stderr) == (1, "\\u0436\n", "error: \\u0436\n")


INTERRUPTED = """
import os, runpy, signal, sys
def hook(event, arguments):
    if event == "import" and arguments[0] == "numpy":
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
sys.argv = ["generate"]
runpy.run_module("stages.generate", run_name="__main__")
"""


def test_an_interrupt_while_modules_are_imported_is_one_line():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "error: interrupted\n")


@pytest.mark.parametrize("command", [["stages/train.py"], ["stages/generate.py", "--help"]])
def test_a_stage_that_is_run_as_a_file_is_answered(command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: run `python -m stages.NAME` from the project's root\n"
