"""Who trains together, and how everybody learns within seconds that somebody is gone.

The training itself is spread by tf.distribute (`stages/distribute.py`), which is told by the ordinary
TF_CONFIG who takes part. Where one of them dies or hangs it stops with a message of many lines or waits
for ever. So before it starts each worker opens a connection to the chief's address, and over it, a line
of JSON a message,

- the chief hands out the parameters, compares what everybody's numbers depend on, gives the state to
  start from, calls each epoch and says when it is over;
- both sides say, at least every second, that they are alive and which step they have begun.

A process that finds another one gone names it in one line and ends itself at once, whatever its other
threads are doing; all files appear whole (`stages/files.py`), so nothing is lost but the epoch.
"""

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stages.errors import StageError

TAKES = (
    'takes JSON like {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}, with the same cluster on every host'
)
GOES_ON = "whole epochs are kept, `dvc repro` goes on after the last one, with any number of workers"
JOBS = ("chief", "worker")
NO_WAITING = getattr(socket, "MSG_DONTWAIT", 0)
OF_COLLECTIVES = {
    *("UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError", "InternalError"),
}


@dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    addresses: "host:port" of each, the chief's first. names: what TF_CONFIG calls them. index: which of
    them this process is. local: whether they all are this process's children.
    """

    addresses: tuple[str, ...]
    names: tuple[str, ...]
    index: int = 0
    local: bool = False

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.addresses)

    def name(self, index: int) -> str:
        """One of them, for people."""
        return f"{self.names[index]} ({self.addresses[index]})"


def cluster_of_tf_config() -> Cluster | None:
    """The cluster that $TF_CONFIG describes, None where it is not set or names one process only.

    Jobs and tasks as in https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable:
    a job `chief` of one task, or else the first `worker`, leads. Raises StageError for anything else.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text.strip():
        return None
    try:
        tree = json.loads(text)
        jobs, kind, number = tree["cluster"], tree["task"]["type"], tree["task"]["index"]
        tasks = [(job, at) for job in JOBS for at in range(len(jobs.get(job, [])))]
        addresses = tuple(jobs[job][at] for job, at in tasks)
        if unknown := set(jobs) - set(JOBS):
            raise StageError(f"TF_CONFIG: job {min(unknown)!r}; takes the jobs chief and worker")
        for address in addresses:
            split_address(address)
        index = tasks.index((kind, number))
    except StageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = text if len(text) <= 200 else text[:200] + "…"
        raise StageError(f"TF_CONFIG: got {shown}; {TAKES}") from None
    if len(set(addresses)) < len(addresses) or len(jobs.get("chief", [])) > 1:
        raise StageError(f"TF_CONFIG: got {list(addresses)}; takes different addresses and one chief")
    names = ("the chief", *(f"{job} {at}" for job, at in tasks[1:]))
    return Cluster(addresses, names, index) if len(addresses) > 1 else None


def cluster_to_lead(workers: int) -> Cluster | None:
    """The cluster that this process leads: TF_CONFIG's, or `workers` local processes, None for one.

    Raises StageError where TF_CONFIG makes it a worker, and for both at once.
    """
    cluster = cluster_of_tf_config()
    if cluster and cluster.index:
        raise StageError(
            f"TF_CONFIG: makes this process {cluster.name(cluster.index)}; `dvc repro` takes part as the "
            "chief only, the other hosts run `python -m stages.worker`"
        )
    if cluster and workers > 1:
        raise StageError(
            f"train.workers: got {workers}; takes 1 where TF_CONFIG names the workers, as it does here"
        )
    if cluster is None and workers > 1:
        names = ("the chief", *(f"worker {number}" for number in range(1, workers)))
        return Cluster(("127.0.0.1:0",) * workers, names, local=True)
    return cluster


def split_address(address: str) -> tuple[str, int]:
    """Host and port. Raises ValueError for anything but "host:port"."""
    host, _, port = address.rpartition(":")
    if not host or not 0 <= int(port) < 2**16:
        raise ValueError(address)
    return host.strip("[]"), int(port)


def listening(address: str, local: bool = False) -> socket.socket:
    """A listening socket on an address's port. Raises StageError where that is taken or not allowed."""
    host, port = split_address(address)
    try:
        return socket.create_server((host if local else "", port))
    except OSError as error:
        raise StageError(
            f"port {port} of {address} cannot be used ({os.strerror(error.errno or 0)}); end the program "
            "that has it, which may be another run, or take another port in TF_CONFIG, on every host"
        ) from None


class Link:
    """One end of the connection between the chief and a worker.

    heard: when the other side last said anything, by time.monotonic(). begun: the steps it has begun.
    error: what it says went wrong there. closed: it is gone. ended: it said so before.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        self.name = name
        self.heard = time.monotonic()
        self.begun = 0
        self.error = ""
        self.closed = self.ended = False
        self._connection = connection
        self._connection.settimeout(None)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._sending = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Sort what comes until the other side is gone."""
        with (
            contextlib.suppress(OSError, ValueError, AttributeError),
            self._connection.makefile() as lines,
        ):
            for line in lines:
                message: dict[str, Any] = json.loads(line)
                self.begun = message.get("begun", self.begun)
                self.error = message.get("error", self.error)
                self.ended |= "end" in message
                self.heard = time.monotonic()
                if not {"begun", "error"} & set(message):
                    self._messages.put(message)
        self.closed = True
        self._messages.put(None)

    def send(self, **message: Any) -> None:
        """Send one message; nothing happens where the other side is gone, which the reader sees."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def send_soon(self, **message: Any) -> None:
        """`send`, unless this side is sending anyway or the other does not read."""
        if self._sending.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    self._connection.send(json.dumps(message).encode() + b"\n", NO_WAITING)
            finally:
                self._sending.release()

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next message; None where the other side is gone, or silent for `timeout` seconds."""
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            return None

    def wait(self, timeout: float) -> None:
        """Wait until the other side is gone, at most `timeout` seconds."""
        self._reader.join(max(0.0, timeout))

    def close(self) -> None:
        """End the connection; what was sent still arrives."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


class Watch(threading.Thread):
    """Says that this process is alive, and ends it as soon as another one is not.

    links: to the others, a list that may grow. timeout: seconds of silence that are too many. progress:
    gives the steps that this process has begun and has done. advice: what the user can do about a fault;
    without any it is not printed. at_the_end: called with the fault before the process ends, with exit
    code 1. over: set once nothing is a fault any more.
    """

    def __init__(
        self,
        links: list[Link],
        timeout: float,
        advice: str,
        at_the_end: Callable[[str], object] = lambda fault: None,
    ) -> None:
        super().__init__(daemon=True)
        self.timeout = timeout
        self.progress: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._links, self._advice, self._at_the_end = links, advice, at_the_end
        self._stderr = os.dup(2)  # while TensorFlow is imported, 2 is something else (stages/device.py)
        self.over = threading.Event()
        self._deciding = threading.Lock()

    def run(self) -> None:
        """Look at all links, ten times within the time-out and at least once a second."""
        pause = min(1.0, self.timeout / 10)
        looked = stepped = time.monotonic()
        seen = (0, 0)
        while not self.over.wait(pause):
            now, progress = time.monotonic(), self.progress()
            if progress != seen:
                seen, stepped = progress, now
            for link in list(self._links):
                link.send_soon(begun=progress[0])
            # a process that did not run itself for a while has to read first what came meanwhile
            awake, looked = now - looked < 3 * pause, now
            if fault := self._fault(now, awake, stepped, *progress):
                self.end(fault)

    def _fault(self, now: float, awake: bool, stepped: float, begun: int, done: int) -> str:
        """What is wrong, or nothing."""
        limit = f"{self.timeout:g} s (train.worker_timeout)"
        for link in list(self._links):
            if link.error:
                return f"{link.name}: {link.error}"
            if link.closed and not link.ended:
                return f"{link.name} is gone: killed, crashed or without network"
            if awake and not link.closed and now - link.heard > self.timeout:
                return f"{link.name} has said nothing for {limit}: it hangs or is cut off"
        in_step = now - stepped if begun > done else 0.0
        behind = " and ".join(link.name for link in self._links if link.begun < begun)
        if behind and in_step > self.timeout:
            return f"{behind} did not take part in a step for {limit}: it hangs"
        if in_step > 10 * self.timeout:
            return (
                f"a step has not ended in ten times {limit}, though all take part in it: either it takes "
                "longer, or not every host reaches every port in TF_CONFIG"
            )
        return ""

    def end(self, fault: str) -> None:
        """Name the fault and end the process, from whatever thread, unless the training is over."""
        with self._deciding:
            if not self.over.is_set():
                self._at_the_end(fault)
                if self._advice:
                    newline = "\n" if os.isatty(self._stderr) else ""  # a progress bar may stand there
                    os.write(self._stderr, f"{newline}error: {fault}; {self._advice}\n".encode())
                os._exit(1)

    def stop(self) -> None:
        """The training is over; nothing is a fault any more."""
        with self._deciding:
            self.over.set()


class Crew:
    """The workers of a training, as its chief sees them; without a cluster there are none.

    Use it in a `with` block; leaving the block ends the workers. needed: False to send them home only.
    """

    def __init__(self, cluster: Cluster | None, timeout: float, needed: bool = True) -> None:
        self._cluster, self._timeout, self._needed = cluster, timeout, needed
        self._links: list[Link] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._held: list[socket.socket] = []
        self._sending_home: threading.Thread | None = None
        self.watch = Watch(self._links, timeout, GOES_ON, self._at_the_end)

    def __enter__(self) -> "Crew":
        if self._cluster and not self._needed and not self._cluster.local:
            self._sending_home = threading.Thread(target=self._send_home, daemon=True)
            self._sending_home.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.watch.stop()
        if self._sending_home:
            self._sending_home.join()
        for link in self._links:
            link.send(**({"end": True} if error is None else {"error": str(error) or "interrupted"}))
            link.close()
        deadline = time.monotonic() + 5
        # whoever ends before it was read to the end may take its last word along
        for link in self._links:
            link.wait(deadline - time.monotonic())
        for child in self._children:
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for holder in self._held:
            holder.close()

    def assemble(self, job: dict[str, Any], depends_on: dict[str, Any]) -> None:
        """Wait until all workers have come and depend on the same things as this process.

        job: what they need to know in order to prepare. Raises StageError that names who has not come
        within the time-out, and what is different where.
        """
        if not self._cluster:
            return
        self.watch.start()
        with listening(self._cluster.addresses[0], self._cluster.local) as server:
            if self._cluster.local:
                self._cluster = self._start_children(server)
            self._wait_for_all(server, self._cluster)
        os.environ["TF_CONFIG"] = tf_config(self._cluster, 0)
        self.call(job={**job, "timeout": self._timeout})
        for link in self._links:
            answer = link.receive(10 * self._timeout)
            if link.closed:
                self.watch.join()  # which says why, and ends the process
            if answer is None:
                limit = f"ten times {self._timeout:g} s (train.worker_timeout)"
                raise StageError(f"{link.name} did not get ready in {limit}")
            if different := first_difference(depends_on, answer["depends_on"]):
                raise StageError(f"{link.name} has {different}; every worker needs what the chief has")

    def call(self, **message: Any) -> None:
        """Send a message to all workers."""
        for link in self._links:
            link.send(**message)

    def blamed(self) -> contextlib.AbstractContextManager[None]:
        """`blamed` by this crew's watch, if there is anybody to watch."""
        return blamed(self.watch) if self._links else contextlib.nullcontext()

    def _start_children(self, server: socket.socket) -> Cluster:
        """Start the local workers; returns the cluster with its ports."""
        assert self._cluster
        self._held = [socket.socket() for _ in self._cluster.addresses[1:]]
        for holder in self._held:  # bound but not listening: nobody else is given these ports meanwhile
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
        addresses = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in (server, *self._held))
        cluster = Cluster(addresses, self._cluster.names, local=True)
        for index in range(1, cluster.size):
            environment = {**os.environ, "TF_CONFIG": tf_config(cluster, index), "TQDM_DISABLE": "1"}
            command = [sys.executable, "-m", "stages.worker", "--local"]
            # a session of its own: Ctrl-C is for the chief, who sends them home
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

    def _wait_for_all(self, server: socket.socket, cluster: Cluster) -> None:
        """Accept connections until each worker has said who it is."""
        missing = dict.fromkeys(range(1, cluster.size))
        print(f"waiting for {' and '.join(map(cluster.name, missing))}", flush=True)
        deadline = time.monotonic() + self._timeout
        strangers: list[Link] = []
        server.settimeout(0.1)
        while missing:
            for at, child in enumerate(self._children, 1):
                if at in missing and child.poll() is not None:
                    raise StageError(
                        f"{cluster.name(at)} ended with exit code {child.returncode}; {GOES_ON}"
                    )
            if time.monotonic() > deadline:
                absent = " and ".join(map(cluster.name, missing))
                raise StageError(
                    f"{absent} did not come within {self._timeout:g} s (train.worker_timeout); start "
                    "`python -m stages.worker` there first, it waits for the chief"
                )
            with contextlib.suppress(TimeoutError):
                strangers.append(Link(server.accept()[0], "a stranger"))
            for link in list(strangers):
                hello = link.receive(timeout=0) or {}
                index = hello.get("index")
                if index in missing and hello.get("addresses") == list(cluster.addresses):
                    del missing[index]
                    link.name = cluster.name(index)
                    self._links.append(link)
                elif hello:
                    link.send(error="its TF_CONFIG is another, or has another worker of this index")
                    link.close()
                else:
                    continue
                strangers.remove(link)

    def _send_home(self) -> None:
        """Tell workers that come while no epoch is left to compute, until the block is left."""
        assert self._cluster
        with contextlib.suppress(OSError, StageError), listening(self._cluster.addresses[0]) as server:
            server.settimeout(0.2)
            while True:
                try:
                    self._links.append(Link(server.accept()[0], "a worker"))
                    self._links[-1].send(end=True)
                except TimeoutError:
                    if self.watch.over.is_set():
                        return

    def _at_the_end(self, fault: str) -> None:
        """Tell the workers what is wrong; no local one stays behind."""
        for child in self._children:
            child.kill()
            child.wait()
        for link in self._links:
            link.send_soon(error=fault)


@contextlib.contextmanager
def blamed(watch: Watch) -> Iterator[None]:
    """Leave it to the watch to say whose fault the failure of a collective operation is."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ not in OF_COLLECTIVES:
            raise
        time.sleep(3 * min(1.0, watch.timeout / 10))
        cause = " ".join(str(error).split("aborted by:")[-1].replace("\\n", " ").split())[:300]
        watch.end(f"TensorFlow's exchange between the workers failed: {cause}")
        raise


def tf_config(cluster: Cluster, index: int) -> str:
    """The environment variable as TensorFlow reads it; left as it is where the user set it."""
    if not cluster.local:
        return os.environ["TF_CONFIG"]
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(cluster.addresses)}, "task": task})


def first_difference(ours: Any, theirs: Any, name: str = "") -> str:
    """The first value in two trees of JSON that differs, in words; nothing where they are the same."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(set(ours) | set(theirs)):
            below = f"{name}.{key}" if name else key
            if found := first_difference(ours.get(key), theirs.get(key), below):
                return found
        return ""
    return "" if ours == theirs else f"another {name}: {theirs!r} instead of {ours!r}"
