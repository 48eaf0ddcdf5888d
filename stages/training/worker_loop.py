"""The training loop of a worker: it computes its share of every batch, as the coordinator says."""

import base64
import dataclasses
import os
import sys
from typing import Any

from stages.common.files import sha256_of
from stages.common.params import Params, read_params
from stages.common.paths import WINDOWS_FILE
from stages.distributed.cluster import Cluster, share_of_host
from stages.distributed.connection import Connection
from stages.distributed.heartbeat import HeartbeatMonitor
from stages.distributed.strategy import distribute
from stages.text.windows_file import load_windows
from stages.training.checkpoints import from_bytes
from stages.training.device import set_up_tensorflow
from stages.training.fingerprint import fingerprint_inputs
from stages.training.loop import compute_epoch, repeats_first_steps
from stages.training.trainer import Trainer

EVALUATED = ("x_val", "y_val", "x_test", "y_test")


def work(job: dict[str, Any], cluster: Cluster, connection: Connection, monitor: HeartbeatMonitor) -> None:
    """Take part in one training run; ends the process.

    Args:
        job: sections of `params.yaml`, device and cores from the coordinator.
        cluster: the processes that train together.
        connection: to the coordinator.
        monitor: detects failures of the coordinator.

    Raises:
        StageError: the windows are missing.
    """
    params = Params.model_validate(read_params().model_dump() | job["params"])
    windows = load_windows()
    device = set_up_tensorflow(job["device"], job["cores"], params.train.precision, share_of_host(cluster))
    connection.send(inputs=fingerprint_inputs(params, device, sha256_of(WINDOWS_FILE), len(cluster.names)))
    monitor.receive(connection)  # all workers are ready to connect
    monitor.progress = lambda: (1, 0)  # connecting counts as a step
    trainer = Trainer(
        params.model_copy(update={"train": params.train.model_copy(update={"preview": 0})}),
        # the coordinator alone computes the losses of the validation split and the test split
        dataclasses.replace(windows, **{name: getattr(windows, name)[:0] for name in EVALUATED}),
        device,
        distribute(device, len(cluster.names), cluster.index),
    )
    monitor.progress = lambda: (trainer.loop.begun + 1, trainer.loop.done + 1)
    repeats_first_steps(trainer, others=True)  # takes part; the coordinator draws the conclusion
    connection.send(ready=True)
    state = bytearray()
    while "piece" in (message := monitor.receive(connection)):
        state += base64.b64decode(message["piece"])
    connection.send(complete=True)
    if state:
        trainer.restore(from_bytes(bytes(state)))
    while "epoch" in (message := monitor.receive(connection)):
        print(f"{cluster.name(cluster.index)}: epoch {message['epoch']}", flush=True)
        compute_epoch(trainer, message["epoch"], others=True)
    sys.stdout.flush()
    os._exit(0)  # a normal exit would make TensorFlow wait for the other processes
