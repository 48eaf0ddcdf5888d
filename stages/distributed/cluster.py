"""The cluster: the processes that train together, as `TF_CONFIG` or `train.workers` names them."""

import json
import os
import socket
from dataclasses import dataclass

from stages.common.errors import StageError

TAKES = (
    'takes JSON like {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}, with the same cluster on every host'
)
JOBS = ("chief", "worker")  # TensorFlow's names; the first task of the first job coordinates


@dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
        addresses: "host:port" of each, the coordinator's first.
        names: what messages call them.
        index: which of them this process is.
        local: whether the workers are child processes of the coordinator.
    """

    addresses: tuple[str, ...]
    names: tuple[str, ...]
    index: int = 0
    local: bool = False

    @property
    def size(self) -> int:
        """The number of processes."""
        return len(self.addresses)

    def name(self, index: int) -> str:
        """Name a process and its address, for messages."""
        return f"{self.names[index]} ({self.addresses[index]})"


def cluster_of_tf_config() -> Cluster | None:
    """Read the cluster that `$TF_CONFIG` describes.

    Jobs and tasks are as in
    https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable:
    a job `chief` of one task, or else the first `worker`, coordinates.

    Returns:
        The cluster; None where the variable is not set or names one process only.

    Raises:
        StageError: the variable has any other content.
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
    names = ("the coordinator", *(f"{job} {at}" for job, at in tasks[1:]))
    return Cluster(addresses, names, index) if len(addresses) > 1 else None


def cluster_to_coordinate(workers: int) -> Cluster | None:
    """Find the cluster that this process coordinates.

    Args:
        workers: `train.workers`, the number of local processes.

    Returns:
        The cluster of `TF_CONFIG`, or `workers` local processes; None for one process.

    Raises:
        StageError: `TF_CONFIG` makes this process a worker, or both kinds of cluster are given.
    """
    cluster = cluster_of_tf_config()
    if cluster and cluster.index:
        raise StageError(
            f"TF_CONFIG: makes this process {cluster.name(cluster.index)}; `dvc repro` runs on the "
            "coordinator only, the other hosts run `python -m stages.worker`"
        )
    if cluster and workers > 1:
        raise StageError(
            f"train.workers: got {workers}; takes 1 where TF_CONFIG names the workers, as it does here"
        )
    if cluster is None and workers > 1:
        names = ("the coordinator", *(f"worker {number}" for number in range(1, workers)))
        return Cluster(("127.0.0.1:0",) * workers, names, local=True)
    return cluster


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port".

    Args:
        address: the address.

    Returns:
        Host and port.

    Raises:
        ValueError: the address has another form.
    """
    host, _, port = address.rpartition(":")
    if not host or not 0 <= int(port) < 2**16:
        raise ValueError(address)
    return host.strip("[]"), int(port)


def listen(address: str, local: bool = False) -> socket.socket:
    """Listen on the port of an address.

    Args:
        address: "host:port".
        local: whether to listen on that host's interface only, and not on all.

    Returns:
        The listening socket.

    Raises:
        StageError: the port is in use or not allowed.
    """
    host, port = split_address(address)
    try:
        return socket.create_server((host if local else "", port))
    except OSError as error:
        raise StageError(
            f"port {port} of {address} cannot be used ({os.strerror(error.errno or 0)}); end the program "
            "that has it, which may be another run, or take another port in TF_CONFIG, on every host"
        ) from None


def tf_config(cluster: Cluster, index: int) -> str:
    """Write the value of `TF_CONFIG` for a process of a local cluster, or return the user's own."""
    if not cluster.local:
        return os.environ["TF_CONFIG"]
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(cluster.addresses)}, "task": task})
