"""The Python that tests start as a fork, against Python itself."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import FORKS, forking_python

SAYS = """
import os, sys
print(sys.argv[1:], sys.path[0], os.getcwd(), os.environ["OF_THE_TEST"], sys.stdin.read(), __name__)
print(oct(os.umask(0)), os.sched_getaffinity(0), file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""

CORE = min(os.sched_getaffinity(0)) if FORKS else 0
ONE_CORE = [shutil.which("taskset") or "taskset", "-c", str(CORE)]

pytestmark = pytest.mark.skipif(not FORKS, reason="tests start no forks here")


def both(folder, *command):
    """Run it as a fork and by Python itself; returns exit status, output and errors of each."""
    found = []
    for python in (forking_python(), sys.executable):
        done = subprocess.run(
            [*ONE_CORE, python, *command],
            cwd=folder,
            env={"OF_THE_TEST": "ä"},
            input="typed",
            capture_output=True,
            text=True,
            umask=0o27,
        )
        found.append([done.returncode, done.stdout, done.stderr])
    return found


@pytest.mark.parametrize("command", [("-m", "module"), ("-c", SAYS)])
def test_a_fork_has_its_own_surroundings(tmp_path, command):
    (tmp_path / "module.py").write_text(SAYS)
    first = str(tmp_path) if command[0] == "-m" else ""
    for code in ("0", "7"):
        forked, plain = both(tmp_path, *command, code, "", "two words", "ü")
        assert forked == plain
        assert forked == [
            int(code),
            f"['{code}', '', 'two words', 'ü'] {first} {tmp_path} ä typed __main__\n",
            f"0o27 {{{CORE}}}\n",
        ]


@pytest.mark.parametrize("number", [2, 9, 11])
def test_a_forks_signal_is_the_commands(tmp_path, number):
    code = f"import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), {number})"
    forked, plain = both(tmp_path, "-c", code)
    assert forked == plain == [-number, "", ""]


def test_what_a_fork_starts_is_a_fork(tmp_path):
    """Of the options it takes two; with others it starts Python itself."""
    asks = "import sys; print('tensorflow' in sys.modules)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:], '-c', {asks!r}])"
    assert both(tmp_path, "-c", code) == [[0, "True\n", ""], [0, "False\n", ""]]
    assert both(tmp_path, "-c", code, "-I") == [[0, "False\n", ""]] * 2


def test_a_fork_ends_with_the_command():
    command = [forking_python(), "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        fork = int(process.stdout.readline())
        assert fork != process.pid
        process.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{fork}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert subprocess.run([forking_python(), "-c", ""]).returncode == 0  # the server goes on
