"""A worker of a training on several hosts: `python -m stages.worker`, with TF_CONFIG set.

Waits for the chief, which is the host that runs `dvc repro`, computes its share of every batch, ends with
the chief and writes nothing. It takes the parameters from the chief; `data/windows.npz` and the project's
code have to be the same, which is checked.
"""

import argparse
import base64
import dataclasses
import os
import socket
import sys
import time
from typing import Any

from stages.cluster import (
    Cluster,
    Link,
    Watch,
    blamed,
    cluster_of_tf_config,
    listening,
    split_address,
)
from stages.errors import StageError, run_stage
from stages.files import sha256_of
from stages.layout import WINDOWS_FILE
from stages.params import Params, read_params
from stages.windows import load_windows


def main() -> None:
    """Take part in one training."""
    parser = argparse.ArgumentParser(prog="python -m stages.worker", description=__doc__)
    parser.add_argument("--local", action="store_true", help="started by the chief on its own machine")
    local = parser.parse_args().local
    cluster = cluster_of_tf_config()
    if cluster is None or cluster.index == 0:
        raise StageError(
            "TF_CONFIG: does not make this process a worker; takes the chief's with this host's own task "
            "(the chief runs `dvc repro`)"
        )
    timeout = read_params().train.worker_timeout
    link = Link(reached(cluster, local), cluster.name(0))
    watch = Watch(
        [link],
        timeout,
        "" if local else "start this again for the next `dvc repro`",  # of local ones the chief speaks
        lambda fault: link.send_soon(error=fault),
    )
    watch.start()
    try:
        take_part(cluster, link, watch)
    except (StageError, KeyboardInterrupt) as error:
        watch.stop()
        link.send(error=str(error) or "interrupted")
        if local:
            sys.exit(1)
        raise


def reached(cluster: Cluster, local: bool) -> socket.socket:
    """A connection to the chief, as soon as it listens; one that is local does so from the start."""
    address = split_address(cluster.addresses[0])
    said = False
    while True:
        try:
            return socket.create_connection(address, timeout=5)
        except OSError as error:
            if local:  # it is gone
                sys.exit(1)
            if not said:
                print(f"waiting for {cluster.name(0)}: {error.strerror or error}", flush=True)
            said = True
            time.sleep(0.5)


def take_part(cluster: Cluster, link: Link, watch: Watch) -> None:
    """Do what the chief says until it is over."""
    link.send(index=cluster.index, addresses=cluster.addresses)
    first = hears(link, watch)
    if "end" in first:
        print(f"{link.name} has no epoch left to compute", flush=True)
        return
    job = first["job"]
    watch.timeout = job["timeout"]
    if not cluster.local:
        listening(cluster.addresses[cluster.index]).close()  # raises where TensorFlow would fail later
    params = Params.model_validate(job["params"])

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from stages.device import set_up_tensorflow
    from stages.distribute import spread_over
    from stages.snapshots import from_bytes
    from stages.trainer import Trainer, what_epochs_depend_on

    windows = load_windows()
    device = set_up_tensorflow(job["device"], job["cores"])
    link.send(depends_on=what_epochs_depend_on(params, device, sha256_of(WINDOWS_FILE)))
    start = hears(link, watch)
    watch.progress = lambda: (1, 0)  # the connecting counts as a step
    with blamed(watch):
        trainer = Trainer(
            params.model_copy(update={"train": params.train.model_copy(update={"preview": 0})}),
            # what is held out is the chief's to judge
            dataclasses.replace(windows, x_val=windows.x_val[:0], y_val=windows.y_val[:0]),
            device,
            spread_over(device, cluster.size, cluster.index),
        )
        if state := base64.b64decode(start["snapshot"]):
            trainer.restore(from_bytes(state))
        watch.progress = lambda: (trainer.begun + 1, trainer.done + 1)
        while "epoch" in (call := hears(link, watch)):
            print(f"{cluster.name(cluster.index)}: epoch {call['epoch']}", flush=True)
            trainer.epoch(call["epoch"])
    watch.stop()
    sys.stdout.flush()
    os._exit(0)  # without TensorFlow's farewell, which asks who else is still there


def hears(link: Link, watch: Watch) -> dict[str, Any]:
    """The chief's next message; where it is gone, the watch ends this process."""
    message = link.receive()
    if message is None:
        watch.join()
    return message or {}


if __name__ == "__main__":
    run_stage(main)
