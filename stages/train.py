"""Stage `train`: the LSTM, a snapshot after every epoch, the final model, the figures.

The article's `model.fit`, an epoch at a time, with early stopping and the best epoch by held-out loss if
asked for. Epochs that were computed before are taken from the store of snapshots (see
`stages/snapshots.py`); only what is missing is computed, where asked for by several workers (see
`stages/cluster.py`), of which this is the chief.
"""

import base64
import os
import time
from typing import TYPE_CHECKING

from stages.cluster import Crew, cluster_to_lead
from stages.errors import StageError, run_stage
from stages.figures import best_epoch
from stages.files import sha256_of, write_bytes_whole
from stages.layout import EPOCHS_DIR, MODEL_FILE, TRAIN_DIR, WINDOWS_FILE
from stages.params import Train, read_params
from stages.snapshots import SnapshotStore, open_store, to_bytes
from stages.windows import load_windows

if TYPE_CHECKING:
    from stages.trainer import Trainer


def main() -> None:
    params = read_params()
    cluster = cluster_to_lead(params.train.workers)
    windows = load_windows()
    judged = {"keep": (params.train.keep, "last"), "patience": (params.train.patience, None)}
    for name, (given, without) in judged.items():
        if given != without and not len(windows.x_val):
            raise StageError(
                f"train.{name}: got {given!r}; takes {without or 'null'} unless vectorize.validation is "
                "above 0, since only held-out windows tell which epoch is best"
            )
    # TensorFlow takes seconds to import, so what is wrong with the above is said before it
    if cluster:  # its complaints about lost workers run over many lines; here they are one
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from stages.device import set_up_tensorflow, usable_cores
    from stages.distribute import Spread, spread_over
    from stages.trainer import Trainer, fingerprint, what_epochs_depend_on

    workers, cores = cluster.size if cluster else 1, params.train.cores
    if cluster and cluster.local:
        cores = max(1, (cores or usable_cores()) // workers)
    device = set_up_tensorflow(params.train.device, cores)
    if device == "cpu" and workers > params.train.streams:
        name = "train.workers" if params.train.workers > 1 else "TF_CONFIG"
        raise StageError(
            f"{name}: got {workers} workers; takes at most {params.train.streams} (train.streams, the "
            "parts of a batch that they share out)"
        )
    depends_on = what_epochs_depend_on(params, device, sha256_of(WINDOWS_FILE))
    store = open_store(fingerprint(depends_on))
    epochs = params.train.epochs
    done = store.longest_run(epochs)
    last = store.read(len(done) - 1) if done else None
    with Crew(cluster, params.train.worker_timeout, needed=len(done) < epochs) as crew:
        spread = Spread()
        if len(done) < epochs:
            crew.assemble({"params": params.model_dump(), "device": device, "cores": cores}, depends_on)
            if cluster:
                crew.call(snapshot=base64.b64encode(to_bytes(last) if last else b"").decode())
            crew.watch.progress = lambda: (1, 0)  # the connecting counts as a step
            with crew.blamed():
                spread = spread_over(device, workers, index=0)
        with crew.blamed():
            trainer = Trainer(params, windows, device, spread)
        crew.watch.progress = lambda: (trainer.begun + 1, trainer.done + 1)
        if last:
            print(f"{len(done)} of {epochs} epochs were computed before and are taken over", flush=True)
            trainer.restore(last)
        for leftover in EPOCHS_DIR.glob("*"):
            leftover.unlink()
        history = train(params.train, trainer, store, done, crew)
    write_bytes_whole(TRAIN_DIR / "losses.tsv", table_of(history).encode())
    best = best_epoch(history)
    kept = best if best is not None and params.train.keep == "best" else len(history) - 1
    trainer.restore(store.read(kept))
    trainer.save(MODEL_FILE)


def train(
    settings: Train, trainer: "Trainer", store: SnapshotStore, done: list[dict[str, float]], crew: Crew
) -> list[dict[str, float]]:
    """Compute the epochs after those that are done, publish and log all; returns the figures of each."""
    from dvclive import Live

    history: list[dict[str, float]] = []
    windows = len(trainer.windows.x)
    with Live(str(TRAIN_DIR), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        for epoch in range(settings.epochs):
            if epoch < len(done):
                figures = done[epoch]
            else:
                crew.call(epoch=epoch)
                started = time.monotonic()
                with crew.blamed():
                    figures = trainer.epoch(epoch)
                seconds = time.monotonic() - started
                store.write(trainer.snapshot(epoch, store.fingerprint, figures))
                loss = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
                print(
                    f"epoch {epoch} (of 0 to {settings.epochs - 1}): {loss}; {seconds:.1f} s, "
                    f"{windows / seconds:,.0f} windows/s\n  {trainer.preview(epoch)}",
                    flush=True,
                )
            store.publish(epoch)
            history.append(figures)
            for name, value in figures.items():
                live.log_metric(name, value)
            best = best_epoch(history)
            if best is not None:
                live.summary["best_epoch"] = best
                live.summary["best_val_loss"] = history[best]["val_loss"]
            live.next_step()
            if best is not None and settings.patience and epoch - best >= settings.patience:
                print(f"stopped: no lower val_loss in {epoch - best} epochs", flush=True)
                break
    return history


def table_of(history: list[dict[str, float]]) -> str:
    """The losses as a table for plots: a line for each epoch and each part of the text it is of."""
    lines = ["epoch\tpart\tloss\tbits_per_char"]
    for epoch, figures in enumerate(history):
        lines.append(f"{epoch}\ttraining\t{figures['loss']}\t{figures['bits_per_char']}")
        if "val_loss" in figures:
            lines.append(f"{epoch}\theld out\t{figures['val_loss']}\t{figures['val_bits_per_char']}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_stage(main)
