"""The training loop of the coordinator: epochs from the store, the rest computed, the kept epoch saved."""

import re
import sys
import time
from typing import Any

import tensorflow as tf

from stages.common.combinations import require_enough_microbatches
from stages.common.device_line import device_line
from stages.common.errors import StageError
from stages.common.files import (
    sha256_of,
    write_bytes_atomically,
    write_json_atomically,
)
from stages.common.history import Metrics, epoch_of_stop, kept_epoch, summary_of, table_of
from stages.common.params import Params
from stages.common.paths import (
    CHECKPOINTS_DIR,
    DEVICE_FILE,
    LOSSES_FILE,
    MODEL_FILE,
    MODELS_DIR,
    TRAIN_METRICS,
    WINDOWS_FILE,
)
from stages.distributed.cluster import Cluster, share_of_host
from stages.distributed.coordinator import RESUME, dismiss, gather, hand_out
from stages.distributed.heartbeat import HeartbeatMonitor
from stages.distributed.strategy import Distribution, distribute
from stages.model.architecture import HAVE_CUDNN
from stages.text.vocabulary_file import ModelText, write_model_text
from stages.text.windows import Windows
from stages.training.checkpoints import Checkpoint, file_name, read_checkpoint, to_bytes
from stages.training.cuda import why_no_gpu
from stages.training.device import CUSOLVER, GPUS, set_up_tensorflow, usable_cores
from stages.training.device_loop import DeviceLoop
from stages.training.failures import reason_of, require_finite
from stages.training.fingerprint import fingerprint, fingerprint_inputs
from stages.training.host_loop import HostLoop
from stages.training.initial_weights import file_of
from stages.training.machine import device_facts
from stages.training.store import CheckpointStore, open_store, publish
from stages.training.trainer import Trainer


def train(params: Params, windows: Windows, text: ModelText, cluster: Cluster | None) -> None:
    """Train for `train.epochs` epochs and write checkpoints, metrics, the vocabulary and the final model.

    Epochs that were computed before are taken from the store; only the missing ones are computed.

    Args:
        params: all parameters.
        windows: what to train on.
        text: how the model reads text.
        cluster: the processes that train together; None for this one alone.

    Raises:
        StageError: there are more workers than microbatches or GPUs, or the device is not available.
    """
    workers, cores = len(cluster.names) if cluster else 1, params.train.cores
    if cluster and cluster.local:
        cores = max(1, (cores or usable_cores()) // workers)
    device = set_up_tensorflow(params.train.device, cores, params.train.precision, share_of_host(cluster))
    if device == "cpu":
        require_enough_microbatches(
            params.train, workers, "train.workers" if params.train.workers > 1 else "TF_CONFIG"
        )
    why = None if GPUS or params.train.device == "cpu" else why_no_gpu(CUSOLVER)
    facts = device_facts(device, params.train.precision, why)
    print(f"device: {device_line(facts, min(cores or usable_cores(), usable_cores()))}", flush=True)
    inputs = fingerprint_inputs(params, device, sha256_of(WINDOWS_FILE), workers)
    trainer = None
    if not cluster:
        trainer = Trainer(params, windows, device, distribute(device, 1, index=0))
        _check_first_steps(trainer, facts, inputs)
    epochs = params.train.epochs
    store, done, last = _open_store(inputs, epochs)
    left = len(done) < epochs and epoch_of_stop(done, params.train.patience) is None
    if cluster and not cluster.local and not left:
        dismiss(cluster)
    with HeartbeatMonitor(params.train.worker_timeout, RESUME) as monitor:
        if cluster and left:
            sections = params.model_dump(include={"vectorize", "model", "train"})
            job = {"params": sections, "device": device, "cores": cores, "timeout": monitor.timeout}
            for name, answer in gather(cluster, job, monitor).items():
                if difference := first_difference(inputs, answer["inputs"]):
                    raise StageError(f"{name} has {difference}; every worker needs what the coordinator has")
            monitor.send(connect=True)
            monitor.progress = lambda: (1, 0)  # connecting counts as a step
        if trainer is None:
            distribution = distribute(device, workers, index=0) if left else Distribution()
            trainer = Trainer(params, windows, device, distribution)
        steps = trainer.loop
        monitor.progress = lambda: (steps.begun + 1, steps.done + 1)
        if cluster and left:
            if not _check_first_steps(trainer, facts, inputs, others=True):
                store, done, last = _open_store(inputs, epochs)
            hand_out(to_bytes(last) if last else b"", monitor)
        write_json_atomically(DEVICE_FILE, facts)
        if last:
            print(f"{len(done)} of {epochs} epochs were computed before and are taken over", flush=True)
            trainer.restore(last)
        elif weights := file_of(params.train.init_from):
            print(f"initial weights: {weights}", flush=True)
        write_model_text(MODELS_DIR, text)
        for leftover in CHECKPOINTS_DIR.glob("*"):
            leftover.unlink()
        history = _run_epochs(params, trainer, store, done, monitor)
    kept = kept_epoch(history, params.train.keep)
    # from there, since the store may be deleted at any time
    trainer.restore(read_checkpoint(CHECKPOINTS_DIR / file_name(kept)))
    if len(windows.x_test):
        metrics = trainer.evaluate(windows.x_test, windows.y_test, "test_")
        require_finite(metrics["test_loss"], f"the test of epoch {kept}")
        write_json_atomically(TRAIN_METRICS, summary_of(history, kept, metrics))
        values = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"test split, the model of epoch {kept}: {values}", flush=True)
    trainer.save(MODEL_FILE)


def repeats_first_steps(trainer: Trainer, others: bool = False) -> bool:
    """Do the first steps twice on GPUs. Every process of a cluster has to call it.

    Args:
        trainer: a trainer before its next epoch, whose state stays as it is.
        others: whether other processes take part.

    Returns:
        Whether the bytes are the same; True on a CPU.

    Raises:
        StageError: a GPU cannot compute the steps. Failures of other processes are left to the monitor.
    """
    try:
        return trainer.repeats_first_steps()
    except tf.errors.OpError as error:
        if others and _is_of_another(error):
            raise
        raise StageError(
            f"the GPU cannot compute the first step: {reason_of(error)}; try a smaller "
            "train.batch_size, train.use_cudnn: false, train.precision: float32 or train.device: cpu"
        ) from None


def compute_epoch(trainer: Trainer, epoch: int, others: bool = False) -> Metrics:
    """Train for an epoch.

    Args:
        trainer: the trainer.
        epoch: as for `Trainer.epoch`.
        others: whether other processes take part.

    Returns:
        The metrics.

    Raises:
        StageError: also if a GPU fails. Failures of other processes are left to the monitor.
    """
    try:
        return trainer.epoch(epoch)
    except tf.errors.OpError as error:
        no_memory = isinstance(error, tf.errors.ResourceExhaustedError)
        if no_memory or (others and _is_of_another(error)) or isinstance(trainer.loop, HostLoop):
            raise
        raise StageError(
            f"the GPU failed in epoch {epoch}: {reason_of(error)}; finished epochs are kept, "
            "`dvc repro` resumes"
        ) from None


def _is_of_another(error: tf.errors.OpError) -> bool:
    """Whether TensorFlow may have failed because another process did."""
    return re.search("ollective|aborted by", error.message) is not None


def why_no_cudnn(trainer: Trainer, params: Params) -> str:
    """Say why a GPU's steps are computed without cuDNN; empty where they are not, and on a CPU.

    Args:
        trainer: a trainer that has trained.
        params: all parameters.

    Returns:
        The reason.
    """
    if not isinstance(trainer.loop, DeviceLoop) or trainer.loop.uses_cudnn:
        return ""
    if params.model.cell not in HAVE_CUDNN:
        return f"Keras has no cuDNN layer for model.cell: {params.model.cell}"
    return "Keras sees no GPU" if params.train.use_cudnn else "train.use_cudnn is false"


def _check_first_steps(
    trainer: Trainer, facts: dict[str, Any], inputs: dict[str, Any], others: bool = False
) -> bool:
    """Record whether the first steps repeat; if not, warn and change what the fingerprint is of."""
    facts["reproducible"] = repeats = repeats_first_steps(trainer, others)
    if not repeats:
        inputs["reproducible"] = False  # so that its checkpoints are never taken for reproducible ones
        print(
            "warning: the first steps, done twice, gave different bytes: this run is not reproducible. It "
            "takes over no epoch of a run that was, and no such run takes over its epochs",
            file=sys.stderr,
        )
    return repeats


def _open_store(
    inputs: dict[str, Any], epochs: int
) -> tuple[CheckpointStore, list[Metrics], Checkpoint | None]:
    """Open the store of a fingerprint. Returns it, the metrics of its epochs and the last checkpoint."""
    store = open_store(fingerprint(inputs))
    done = store.valid_epochs(epochs)
    return store, done, store.read(len(done) - 1) if done else None


def _run_epochs(
    params: Params,
    trainer: Trainer,
    store: CheckpointStore,
    done: list[Metrics],
    monitor: HeartbeatMonitor,
) -> list[Metrics]:
    """Compute the epochs after those that are done; publish all. Returns the metrics of each."""
    settings = params.train
    history: list[Metrics] = []
    for epoch in range(settings.epochs):
        if epoch < len(done):
            metrics = done[epoch]
            publish(epoch, store.content(epoch))
        else:
            monitor.send(epoch=epoch)
            started = time.monotonic()
            metrics = compute_epoch(trainer, epoch, bool(monitor.connections))
            seconds = time.monotonic() - started
            if epoch == len(done) and (why := why_no_cudnn(trainer, params)):
                print(f"without cuDNN: {why}", flush=True)
            publish(epoch, store.write(trainer.checkpoint(store.fingerprint, metrics)))
            values = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            print(
                f"epoch {epoch} (of 0 to {settings.epochs - 1}): {values}; {seconds:.1f} s, "
                f"{trainer.plan.windows / seconds:,.0f} windows/s",
                flush=True,
            )
            if preview := trainer.preview(epoch):
                print(f"  {' '.join(preview.splitlines())}", flush=True)
        history.append(metrics)
        # written each epoch, so that `dvc exp show` and `dvc plots show` follow a run
        write_bytes_atomically(LOSSES_FILE, table_of(history, settings.targets).encode())
        write_json_atomically(TRAIN_METRICS, summary_of(history, kept_epoch(history, params.train.keep)))
        if epoch_of_stop(history, settings.patience) is not None:
            print(f"stopped: no lower val_loss in {settings.patience} epochs", flush=True)
            break
    return history


def first_difference(ours: dict[str, Any], theirs: dict[str, Any], name: str = "") -> str:
    """Describe the first value in two JSON trees that differs.

    Args:
        ours: the coordinator's tree.
        theirs: the worker's tree.
        name: the dotted name of the trees.

    Returns:
        For example "another train.seed: 1 instead of 0"; empty where the trees are equal.
    """
    for key in sorted(set(ours) | set(theirs)):
        our, their, below = ours.get(key), theirs.get(key), f"{name}{key}"
        if isinstance(our, dict) and isinstance(their, dict):
            if found := first_difference(our, their, f"{below}."):
                return found
        elif our != their:
            return f"another {below}: {their!r} instead of {our!r}"
    return ""
