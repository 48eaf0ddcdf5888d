"""The cluster: the processes that train together, as `TF_CONFIG` or `train.workers` names them."""

import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from stages.common.errors import StageError

TAKES = (
    'takes JSON like {"cluster": {"worker": ["host0:2222", "[fd00::1]:2222"]}, '
    '"task": {"type": "worker", "index": 0}}, with the same cluster on every host'
)
JOBS = ("chief", "worker")  # TensorFlow's names; the first task of the first job coordinates
KEY = "CHAR_LSTM_CLUSTER_KEY"  # the variable with the secret that all processes of a cluster share


@dataclass(frozen=True)
class Cluster:
    """The processes that train together."""

    addresses: tuple[str, ...]  # "host:port" of each, the coordinator's first
    names: tuple[str, ...]  # what messages call them
    index: int = 0  # which of them this process is
    key: str = field(default="", repr=False)  # the secret that they share
    local: tuple[socket.socket, ...] = ()  # where the workers are child processes: what holds their ports

    def name(self, index: int) -> str:
        """Name a process and its address, for messages."""
        return f"{self.names[index]} ({self.addresses[index]})"


def cluster_of_tf_config() -> Cluster | None:
    """Read the cluster that `$TF_CONFIG` describes; None where it is not set or names one process only.

    Raises:
        StageError: the variable has any other content.
    """
    if not (text := os.environ.get("TF_CONFIG", "").strip()):
        return None
    try:
        tree = json.loads(text)
        jobs, task = tree["cluster"], tree["task"]
        tasks = [(job, at) for job in JOBS for at in range(len(jobs.get(job, [])))]
        addresses = tuple(jobs[job][at] for job, at in tasks)
        split = [split_address(address) for address in addresses]
        index = tasks.index((task["type"], task["index"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StageError(f"TF_CONFIG: got {text[:200]}{'…' * (len(text) > 200)}; {TAKES}") from None
    if set(jobs) - set(JOBS) or len(set(split)) < len(split) or len(jobs.get("chief", [])) > 1:
        takes = "takes the jobs chief and worker, with different addresses and one chief"
        raise StageError(f"TF_CONFIG: got {json.dumps(jobs)[:200]}; {takes}")
    if len(addresses) == 1:
        return None
    if not (key := os.environ.get(KEY, "")):
        print(f"warning: {KEY} is not set: whoever reaches {addresses[0]} can take part", file=sys.stderr)
    return Cluster(addresses, ("the coordinator", *(f"{job} {at}" for job, at in tasks[1:])), index, key)


def cluster_to_coordinate(workers: int) -> Cluster | None:
    """Find the cluster to coordinate: `TF_CONFIG`'s, or `train.workers` local processes; None for one.

    Raises:
        StageError: `TF_CONFIG` makes this process a worker, or both kinds of cluster are given.
    """
    cluster = cluster_of_tf_config()
    if cluster and cluster.index:
        mine = cluster.name(cluster.index)
        raise StageError(f"TF_CONFIG: makes this process {mine}, which runs `python -m stages.worker`")
    if workers == 1:
        return cluster
    if cluster:
        raise StageError(f"train.workers: got {workers}; takes 1 where TF_CONFIG names the workers, as here")
    held = tuple(socket.socket() for _ in range(workers))
    for each in held:  # bound but not listening: no other program gets these ports
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("127.0.0.1", 0))
    addresses = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in held)
    names = ("the coordinator", *(f"worker {number}" for number in range(1, workers)))
    return Cluster(addresses, names, key=secrets.token_hex(), local=held)


def share_of_host(cluster: Cluster | None) -> tuple[int, int]:
    """Count the processes on this process's host, those whose addresses have the same host part.

    Args:
        cluster: the processes that train together; None for this one alone.

    Returns:
        This process's place among them, counted from 0, and their number.
    """
    if cluster is None:
        return 0, 1
    hosts = [split_address(address)[0] for address in cluster.addresses]
    host = hosts[cluster.index]
    return hosts[: cluster.index].count(host), hosts.count(host)


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port" or "[IPv6 address]:port"; a ValueError if it has another form."""
    parts = urlsplit(f"//{address}")
    if parts.netloc != address or not parts.hostname or not parts.port:
        raise ValueError(address)
    return parts.hostname, parts.port


def listen(address: str) -> socket.socket:
    """Listen on the port of a "host:port", for this host only if it begins with 127., otherwise for all.

    Raises:
        StageError: the port is in use or not allowed.
    """
    host, port = split_address(address)
    local = host if host.startswith("127.") else ""
    both = not local and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server((local, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        advice = "end the program that has it, or take another port in TF_CONFIG, on every host"
        raise StageError(f"port {port} of {address} cannot be used ({why}); {advice}") from None
