"""A worker of a training run on several hosts: `python -m stages.worker`, with `TF_CONFIG` set.

It waits for the coordinator, the host that runs `dvc repro`, computes its share of every batch, ends with
the coordinator and writes no file. It gets the parameters from the coordinator. `data/windows.npz` and the
numeric code have to be the same on all hosts, which is checked.
"""

import os
import socket
import sys
import time

from stages.common.cli import Parser
from stages.common.errors import StageError, run_stage
from stages.common.params import read_params
from stages.distributed.cluster import Cluster, cluster_of_tf_config, listen, split_address
from stages.distributed.connection import Connection
from stages.distributed.heartbeat import HeartbeatMonitor


def main() -> None:
    """Take part in one training run."""
    parser = Parser(prog="python -m stages.worker", description=__doc__)
    parser.add_argument("--local", action="store_true", help="the coordinator started it on its machine")
    local = parser.parse_args().local
    cluster = cluster_of_tf_config()
    if cluster is None or cluster.index == 0:
        raise StageError(
            "TF_CONFIG: does not make this process a worker; takes the coordinator's with this host's own "
            "task (the coordinator runs `dvc repro`)"
        )
    advice = "" if local else "start this again for the next `dvc repro`"  # the coordinator reports for both
    try:
        with HeartbeatMonitor(read_params().train.worker_timeout, advice) as monitor:
            connection = Connection(connect(cluster, local), cluster.name(0), cluster.key, accepted=False)
            monitor.connections.append(connection)
            connection.send(index=cluster.index, addresses=cluster.addresses)
            first = monitor.receive(connection)
            if "end" in first:
                print(f"{connection.name} has no epoch left to compute", flush=True)
                return
            monitor.timeout = first["job"]["timeout"]
            if not local:
                listen(cluster.addresses[cluster.index]).close()  # raises where TensorFlow would fail later
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            import stages.training.device  # noqa: F401, first: it imports TensorFlow without its messages
            from stages.training.worker_loop import work

            work(first["job"], cluster, connection, monitor)
    except (StageError, KeyboardInterrupt):
        if local:
            sys.exit(1)
        raise


def connect(cluster: Cluster, local: bool) -> socket.socket:
    """Connect to the coordinator as soon as it listens.

    Args:
        cluster: the processes that train together.
        local: whether the coordinator is the parent process. Then it listens from the start, and this
            process ends if it does not.

    Returns:
        The connected socket.
    """
    reported = False
    while True:
        try:
            return socket.create_connection(split_address(cluster.addresses[0]), timeout=5)
        except OSError as error:
            if local:
                sys.exit(1)
            if not reported:
                print(f"waiting for {cluster.name(0)}: {error.strerror or error}", flush=True)
            reported = True
            time.sleep(0.5)


if __name__ == "__main__":
    run_stage(main)
