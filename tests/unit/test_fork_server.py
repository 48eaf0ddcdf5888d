"""The Python that tests start as a fork, against Python itself."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import fork_server

SAYS = """
import os, sys, __main__
print(sys.argv[1:], sys.path[0], os.getcwd(), os.environ["OF_THE_TEST"], sys.stdin.read(), __name__)
print(oct(os.umask(0)), os.sched_getaffinity(0), __main__.__spec__.name, file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux tests start Python as forks")


def both(folder, *arguments):
    """Run a module as a fork and by Python itself; returns exit status, output and errors of each."""
    return [
        [done.returncode, done.stdout, done.stderr]
        for python in (fork_server() / "python", sys.executable)
        for done in [
            subprocess.run(
                ["taskset", "-c", "0", python, "-m", "module", *arguments],
                cwd=folder,
                env={"OF_THE_TEST": "ä", "PATH": "/usr/bin"},
                input="typed",
                capture_output=True,
                text=True,
                umask=0o27,
            )
        ]
    ]


def test_a_fork_has_its_own_surroundings(tmp_path):
    (tmp_path / "module.py").write_text(SAYS)
    for code in ("0", "7"):
        forked, plain = both(tmp_path, code, "", "two words", "ü")
        assert forked == plain
        assert forked[0] == int(code)
        assert forked[1:] == [
            f"['{code}', '', 'two words', 'ü'] {tmp_path} {tmp_path} ä typed __main__\n",
            "0o27 {0} module\n",
        ]


def test_a_fork_s_signal_is_the_command_s(tmp_path):
    (tmp_path / "module.py").write_text("import os; os.kill(os.getpid(), 11)")
    forked, plain = both(tmp_path)
    assert forked == plain == [-11, "", ""]


def test_a_fork_ends_with_the_command(tmp_path):
    (tmp_path / "module.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    command = [fork_server() / "python", "-m", "module"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        fork = int(process.stdout.readline())
        assert fork != process.pid
        process.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{fork}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
