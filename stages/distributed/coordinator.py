"""The coordinator's side of a cluster: rendezvous, messages to all workers, the end.

Before training starts, each worker opens a connection to the coordinator's address (TensorFlow takes that
port afterwards). Over it the coordinator sends the parameters and the state to start from, compares the
fingerprint inputs of all workers, announces each epoch and says when training is over.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from stages.common.errors import StageError
from stages.distributed.cluster import Cluster, listen, tf_config
from stages.distributed.connection import Connection
from stages.distributed.heartbeat import HeartbeatMonitor, reported_by

RESUME = "finished epochs are kept, `dvc repro` resumes after the last one, with any number of workers"


class Coordinator:
    """The workers of a training run as the coordinator sees them; without a cluster there are none.

    Use it in a `with` block. Leaving the block ends the workers.

    Attributes:
        monitor: detects failures of workers.
    """

    def __init__(self, cluster: Cluster | None, timeout: float, needed: bool = True) -> None:
        """Create the coordinator.

        Args:
            cluster: the processes; None for this one alone.
            timeout: `train.worker_timeout`, in seconds.
            needed: False if no epoch is left to compute, so that workers are only told to end.
        """
        self._cluster, self._timeout, self._needed = cluster, timeout, needed
        self._connections: list[Connection] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._reserved: list[socket.socket] = []
        self._dismissing: threading.Thread | None = None
        self.monitor = HeartbeatMonitor(self._connections, timeout, RESUME, self._before_exit)

    def __enter__(self) -> "Coordinator":
        if self._cluster and not self._needed and not self._cluster.local:
            self._dismissing = threading.Thread(target=self._dismiss_workers, daemon=True)
            self._dismissing.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.monitor.stop()
        if self._dismissing:
            self._dismissing.join()
        for each in self._connections:
            each.send(**({"end": True} if error is None else {"error": str(error) or "interrupted"}))
            each.close()
        deadline = time.monotonic() + 5
        # a process that ends before the other side has read everything may lose its last message
        for each in self._connections:
            each.wait_closed(deadline - time.monotonic())
        for child in self._children:
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for reserved in self._reserved:
            reserved.close()

    def rendezvous(self, job: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Wait until all workers are connected and have the same fingerprint inputs as this process.

        Args:
            job: what the workers need in order to prepare.
            inputs: this process's fingerprint inputs.

        Raises:
            StageError: a worker did not connect in time, or differs; the message names it.
        """
        if not self._cluster:
            return
        self.monitor.start()
        with listen(self._cluster.addresses[0], self._cluster.local) as server:
            if self._cluster.local:
                self._cluster = self._start_children(server)
            self._accept_all(server, self._cluster)
        os.environ["TF_CONFIG"] = tf_config(self._cluster, 0)
        self.broadcast(job={**job, "timeout": self._timeout})
        for each in self._connections:
            answer = each.receive(10 * self._timeout)
            if each.closed:
                self.monitor.join()  # it reports the reason and ends the process
            if answer is None:
                limit = f"ten times {self._timeout:g} s (train.worker_timeout)"
                raise StageError(f"{each.name} did not get ready in {limit}")
            if difference := first_difference(inputs, answer["inputs"]):
                raise StageError(f"{each.name} has {difference}; every worker needs what the coordinator has")

    def broadcast(self, **message: Any) -> None:
        """Send a message to all workers."""
        for each in self._connections:
            each.send(**message)

    def reporting(self) -> contextlib.AbstractContextManager[None]:
        """Let the monitor report failures of collective operations, if there are workers."""
        return reported_by(self.monitor) if self._connections else contextlib.nullcontext()

    def _start_children(self, server: socket.socket) -> Cluster:
        """Start the local workers. Returns the cluster with its ports."""
        assert self._cluster
        self._reserved = [socket.socket() for _ in self._cluster.addresses[1:]]
        for reserved in self._reserved:  # bound but not listening: no other program gets these ports
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
        addresses = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in (server, *self._reserved))
        cluster = Cluster(addresses, self._cluster.names, local=True)
        for index in range(1, cluster.size):
            environment = {**os.environ, "TF_CONFIG": tf_config(cluster, index), "TQDM_DISABLE": "1"}
            command = [sys.executable, "-m", "stages.worker", "--local"]
            # in a session of their own: Ctrl-C reaches the coordinator only, which ends them
            self._children.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        return cluster

    def _accept_all(self, server: socket.socket, cluster: Cluster) -> None:
        """Accept connections until each worker has introduced itself."""
        missing = dict.fromkeys(range(1, cluster.size))
        print(f"waiting for {' and '.join(map(cluster.name, missing))}", flush=True)
        deadline = time.monotonic() + self._timeout
        unknown: list[Connection] = []
        server.settimeout(0.1)
        while missing:
            for at, child in enumerate(self._children, 1):
                if at in missing and child.poll() is not None:
                    raise StageError(f"{cluster.name(at)} ended with exit code {child.returncode}; {RESUME}")
            if time.monotonic() > deadline:
                absent = " and ".join(map(cluster.name, missing))
                raise StageError(
                    f"{absent} did not connect within {self._timeout:g} s (train.worker_timeout); start "
                    "`python -m stages.worker` there first, it waits for the coordinator"
                )
            with contextlib.suppress(TimeoutError):
                unknown.append(Connection(server.accept()[0], "an unknown process"))
            for each in list(unknown):
                hello = each.receive(timeout=0) or {}
                index = hello.get("index")
                if index in missing and hello.get("addresses") == list(cluster.addresses):
                    del missing[index]
                    each.name = cluster.name(index)
                    self._connections.append(each)
                elif hello:
                    each.send(error="its TF_CONFIG is another, or has another worker of this index")
                    each.close()
                else:
                    continue
                unknown.remove(each)

    def _dismiss_workers(self) -> None:
        """Tell workers that connect while no epoch is left to compute, until the block is left."""
        assert self._cluster
        until = time.monotonic() + 2  # a worker that waits tries to connect every half second
        with contextlib.suppress(OSError, StageError), listen(self._cluster.addresses[0]) as server:
            server.settimeout(0.2)
            while True:
                try:
                    self._connections.append(Connection(server.accept()[0], "a worker"))
                    self._connections[-1].send(end=True)
                except TimeoutError:
                    if self.monitor.stopped.is_set() and time.monotonic() > until:
                        return

    def _before_exit(self, failure: str) -> None:
        """End the local workers, and tell the others the reason."""
        for child in self._children:
            child.kill()
            child.wait()
        for each in self._connections:
            each.send_without_waiting(error=failure)


def first_difference(ours: Any, theirs: Any, name: str = "") -> str:
    """Describe the first value in two JSON trees that differs.

    Args:
        ours: the coordinator's tree.
        theirs: the worker's tree.
        name: the dotted name of the trees.

    Returns:
        For example "another train.seed: 1 instead of 0"; empty where the trees are equal.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(set(ours) | set(theirs)):
            below = f"{name}.{key}" if name else key
            if found := first_difference(ours.get(key), theirs.get(key), below):
                return found
        return ""
    return "" if ours == theirs else f"another {name}: {theirs!r} instead of {ours!r}"
