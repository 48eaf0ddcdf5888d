"""Failure detection, on real connections."""

import socket
import subprocess
import sys
import time

import pytest

from stages.distributed.connection import Connection
from tests.support import ROOT

MONITOR = """
import socket, sys
from stages.distributed.connection import Connection
from stages.distributed.heartbeat import HeartbeatMonitor
begun = int(sys.argv[2])
monitor = HeartbeatMonitor(0.25, "try again")
monitor.connections.append(Connection(socket.socket(fileno=int(sys.argv[1])), "worker 7", "key", True))
monitor.progress = lambda: (begun, begun - 1)
monitor.run()
"""


@pytest.mark.parametrize(
    ("says", "line"),
    [
        ({"steps_begun": 3}, " did not take part in a step for 0.25 s (train.worker_timeout): it hangs"),
        (
            {"steps_begun": 4},
            "a step has not ended in ten times 0.25 s (train.worker_timeout), though all",
        ),
        ({"error": "it is\nMonday"}, ": it is Monday; try again\n"),
        ({}, " sent no heartbeat for 0.25 s (train.worker_timeout): it hangs or is cut off"),
        (None, " disconnected: killed, crashed or without network"),
    ],
    ids=str,
)
def test_each_failure_is_named(says, line):
    """A process whose monitor ends it, whatever its other threads do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    process = subprocess.Popen(
        [sys.executable, "-c", MONITOR, str(here.fileno()), "4"],
        cwd=ROOT,
        pass_fds=[here.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    )
    here.close()
    connection = Connection(there, "here", "key", False)
    began = time.monotonic()
    while process.poll() is None:
        if says is None:
            connection.send(5, steps_begun=4)
            connection.close()
        elif says:
            connection.send(0, **says)
        time.sleep(0.05)
    assert process.stderr is not None
    expected = line if line.startswith("a step") else f"worker 7{line}"
    assert process.stderr.read().startswith(f"error: {expected}")
    assert process.returncode == 1
    assert time.monotonic() - began < 10
