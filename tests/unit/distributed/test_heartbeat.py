"""Failure detection, on real connections."""

import contextlib
import json
import socket
import subprocess
import sys
import time

import pytest

from tests.support import ROOT


@pytest.mark.parametrize(
    ("begun", "says", "line"),
    [
        (4, 3, "worker 7 did not take part in a step for 0.25 s (train.worker_timeout): it hangs"),
        (
            4,
            4,
            "a step has not ended in ten times 0.25 s (train.worker_timeout), though all take part in it",
        ),
    ],
)
def test_a_step_that_does_not_end(begun, says, line):
    """A worker whose connection lives while its training stands still, on a real connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    code = f"""
import socket
from stages.distributed.connection import Connection
from stages.distributed.heartbeat import HeartbeatMonitor
connection = Connection(socket.socket(fileno={here.fileno()}), "worker 7")
monitor = HeartbeatMonitor([connection], 0.25, "try again")
monitor.progress = lambda: ({begun}, {begun} - 1)
monitor.run()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        pass_fds=[here.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    )
    here.close()
    began = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(OSError):
            there.sendall(json.dumps({"steps_begun": says}).encode() + b"\n")
        time.sleep(0.05)
    assert process.stderr is not None
    assert process.stderr.read().startswith(f"error: {line}")
    assert process.returncode == 1
    assert time.monotonic() - began < 10
