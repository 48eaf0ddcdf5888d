"""The coordinator's side: it starts local workers, meets all workers, hands out the job and the state."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from stages.common.errors import StageError
from stages.distributed.cluster import KEY, Cluster, listen
from stages.distributed.connection import Connection
from stages.distributed.heartbeat import HeartbeatMonitor

RESUME = "finished epochs are kept, `dvc repro` resumes after the last one, with any number of workers"
PIECE = 2**14  # bytes of the state in a message; each message counts as a heartbeat
STRANGERS = 64  # connections of unknown processes; a further one costs the oldest its own


def gather(cluster: Cluster, job: dict[str, Any], monitor: HeartbeatMonitor) -> dict[str, Any]:
    """Wait until all workers are connected and have prepared for a job; return their answers by their names.

    Raises:
        StageError: a worker did not connect in time; the message names it.
    """
    with listen(cluster.addresses[0]) as server:  # TensorFlow takes that port afterwards
        children = _local_workers(cluster, monitor) if cluster.local else {}
        print(f"waiting for {' and '.join(map(cluster.name, range(1, len(cluster.names))))}", flush=True)
        for connection in meet(server, cluster, monitor.timeout):
            if connection:
                monitor.connections.append(connection)
                children.pop(connection.name, None)
            for name, child in children.items():
                if child.poll() is not None:
                    raise StageError(f"{name} ended with exit code {child.returncode}; {RESUME}")
    monitor.send(job=job)
    return {each.name: monitor.receive(each, 10 * monitor.timeout) for each in monitor.connections}


def meet(server: socket.socket, cluster: Cluster, timeout: float) -> Iterator[Connection | None]:
    """Yield the connection of each worker once it has introduced itself, and None meanwhile.

    Strangers are refused. What they send, or fail to send, delays nobody.

    Raises:
        StageError: a worker did not come in time; the message names it.
    """
    missing, addresses = list(range(1, len(cluster.names))), list(cluster.addresses)
    strangers: list[Connection] = []
    deadline = time.monotonic() + timeout
    server.settimeout(0.1)
    while missing and time.monotonic() < deadline:
        yield None
        with contextlib.suppress(OSError):  # nobody came, or too many
            strangers.append(Connection(server.accept()[0], "a stranger", cluster.key, accepted=True))
        for each in [each for each in strangers if not each.messages.empty()]:
            message = each.messages.get()
            if found := [at for at in missing if message == {"index": at, "addresses": addresses}]:
                missing.remove(found[0])
                strangers.remove(each)
                each.name = cluster.name(found[0])
                yield each
            else:
                each.send(0, error="its TF_CONFIG is another, or has another worker of this index")
        for each in strangers[: -STRANGERS if missing else None]:
            each.close()
        strangers = [each for each in strangers if not each.failure]
    if missing:
        late = f"{' and '.join(map(cluster.name, missing))} did not connect within {timeout:g} s"
        raise StageError(f"{late} (train.worker_timeout); start `python -m stages.worker` there first")


def hand_out(state: bytes, monitor: HeartbeatMonitor) -> None:
    """Once all workers are ready, send them the state to start from; return once all have it."""
    for each in monitor.connections:
        monitor.receive(each)
    for each in monitor.connections:
        for at in range(0, len(state), PIECE):
            each.send(piece=base64.b64encode(state[at : at + PIECE]).decode())
        each.send(complete=True)
    for each in monitor.connections:
        monitor.receive(each)


def dismiss(cluster: Cluster) -> None:
    """Tell workers that wait, and try to connect every half second, that no epoch is left to compute."""
    with contextlib.suppress(StageError), listen(cluster.addresses[0]) as server:
        for each in filter(None, meet(server, cluster, timeout=2)):
            each.send(end=True)
            each.reader.join(2)  # the end of this process could lose a message that is on its way


def _local_workers(cluster: Cluster, monitor: HeartbeatMonitor) -> dict[str, subprocess.Popen[bytes]]:
    started = {}
    for index in reversed(range(len(cluster.names))):
        task = {"cluster": {"worker": cluster.addresses}, "task": {"type": "worker", "index": index}}
        os.environ["TF_CONFIG"] = json.dumps(task)  # of the child; in the end this process's own
        if index:
            started[cluster.name(index)] = child = subprocess.Popen(
                [sys.executable, "-m", "stages.worker", "--local"],
                env={**os.environ, KEY: cluster.key, "TQDM_DISABLE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the coordinator only, which ends them
            )
            monitor.at_end.callback(child.wait)
            monitor.at_end.callback(child.kill)
    return started
