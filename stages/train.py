"""Stage `train`: the LSTM, a snapshot after every epoch, the final model, the figures.

The article's `model.fit`, an epoch at a time, with early stopping and the best epoch by held-out loss if
asked for. Epochs that were computed before are taken from the store
of snapshots (see `stages/snapshots.py`); only what is missing is computed.
"""

import time

from stages.errors import StageError, run_stage
from stages.figures import best_epoch
from stages.files import sha256_of, write_bytes_whole
from stages.layout import EPOCHS_DIR, MODEL_FILE, TRAIN_DIR, WINDOWS_FILE
from stages.params import read_params
from stages.snapshots import open_store
from stages.windows import load_windows


def main() -> None:
    params = read_params()
    windows = load_windows()
    judged = {"keep": (params.train.keep, "last"), "patience": (params.train.patience, None)}
    for name, (given, without) in judged.items():
        if given != without and not len(windows.x_val):
            raise StageError(
                f"train.{name}: got {given!r}; takes {without or 'null'} unless vectorize.validation is "
                "above 0, since only held-out windows tell which epoch is best"
            )
    # TensorFlow takes seconds to import, so what is wrong with the above is said before it
    from dvclive import Live

    from stages.device import set_up_tensorflow
    from stages.trainer import Trainer, fingerprint

    device = set_up_tensorflow(params.train.device)
    store = open_store(fingerprint(params, device, sha256_of(WINDOWS_FILE)))
    trainer = Trainer(params, windows, device)
    epochs = params.train.epochs
    done = store.longest_run(epochs)
    if done:
        print(f"{len(done)} of {epochs} epochs were computed before and are taken over", flush=True)
        trainer.restore(store.read(len(done) - 1))
    for leftover in EPOCHS_DIR.glob("*"):
        leftover.unlink()

    history: list[dict[str, float]] = []
    with Live(str(TRAIN_DIR), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        for epoch in range(epochs):
            if epoch < len(done):
                figures = done[epoch]
            else:
                started = time.monotonic()
                figures = trainer.epoch(epoch)
                seconds = time.monotonic() - started
                store.write(trainer.snapshot(epoch, store.fingerprint, figures))
                loss = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
                print(
                    f"epoch {epoch} (of 0 to {epochs - 1}): {loss}; {seconds:.1f} s, "
                    f"{len(windows.x) / seconds:,.0f} windows/s\n  {trainer.preview(epoch)}",
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
            if best is not None and params.train.patience and epoch - best >= params.train.patience:
                print(f"stopped: no lower val_loss in {epoch - best} epochs", flush=True)
                break
    write_bytes_whole(TRAIN_DIR / "losses.tsv", table_of(history).encode())
    kept = best if best is not None and params.train.keep == "best" else epoch
    trainer.restore(store.read(kept))
    trainer.save(MODEL_FILE)


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
