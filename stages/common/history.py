"""The history of a training run: metrics of each epoch, as a table and as a summary."""

import csv
import math
from collections.abc import Sequence
from typing import Any

Metrics = dict[str, float]


def best_epoch(history: Sequence[Metrics]) -> int | None:
    """Find the first epoch with the lowest validation loss.

    Args:
        history: the metrics of each epoch.

    Returns:
        The epoch, counted from 0, or None without a validation split.
    """
    losses = [metrics["val_loss"] for metrics in history if "val_loss" in metrics]
    return min(range(len(losses)), key=lambda epoch: (math.isnan(losses[epoch]), losses[epoch]), default=None)


def kept_epoch(history: Sequence[Metrics], keep: str) -> int:
    """Choose the epoch whose weights the final model gets.

    Args:
        history: the metrics of each epoch, at least one.
        keep: `train.keep`.

    Returns:
        The epoch, counted from 0.
    """
    best = best_epoch(history)
    return best if best is not None and keep == "best" else len(history) - 1


def epoch_of_stop(history: Sequence[Metrics], patience: int | None) -> int | None:
    """Find the epoch after which training stops early.

    Args:
        history: the metrics of each epoch.
        patience: epochs in a row without a lower validation loss that end it; None for no end.

    Returns:
        The epoch, counted from 0, or None if training goes on.
    """
    best = 0
    for epoch, metrics in enumerate(history if patience else []):
        if metrics["val_loss"] < history[best]["val_loss"]:
            best = epoch
        elif epoch - best >= (patience or 0):
            return epoch
    return None


def summary_of(history: Sequence[Metrics], kept: int, test: Metrics | None = None) -> dict[str, Any]:
    """Summarize a run for `dvc metrics show`.

    Args:
        history: the metrics of each epoch, at least one.
        kept: the epoch whose weights the final model has.
        test: the metrics of that model on the test split, if there is one.

    Returns:
        Loss and bits per character of that epoch; with a validation split also its validation loss, and
        the best epoch; with a test split its test loss instead of the bits, for which `dvc metrics show`
        then has no room in 100 columns.
    """
    metrics = history[kept] | (test or {})
    names = ("loss", "test_loss" if test else "bits_per_char", "val_loss")
    summary: dict[str, Any] = {name: metrics[name] for name in names if name in metrics}
    best = best_epoch(history)
    return summary if best is None else summary | {"best_epoch": best}


def parts(targets: str) -> dict[str, str]:
    """Name what the losses are of.

    Args:
        targets: `train.targets`. With `all`, the training loss is a mean over all positions of a window,
            so it can be compared with the validation loss over all positions only.

    Returns:
        The part of the text, by the prefix of its metrics.
    """
    if targets == "last":
        return {"": "training", "val_": "validation"}
    return {"": "training, all positions", "val_": "validation", "val_all_": "validation, all positions"}


def table_of(history: Sequence[Metrics], targets: str) -> str:
    """Write the history as a tab-separated table.

    Args:
        history: the metrics of each epoch.
        targets: `train.targets`.

    Returns:
        A header and a row for each epoch and part.
    """
    lines = ["epoch\tpart\tloss\tbits_per_char"]
    for epoch, metrics in enumerate(history):
        for prefix, part in parts(targets).items():
            if f"{prefix}loss" in metrics:
                loss, bits = (metrics[prefix + name] for name in ("loss", "bits_per_char"))
                lines.append(f"{epoch}\t{part}\t{loss}\t{bits}")
    return "\n".join(lines) + "\n"


def history_of(table: str, targets: str) -> list[Metrics]:
    """Read the table that `table_of` wrote."""
    prefixes = {part: prefix for prefix, part in parts(targets).items()}
    history: list[Metrics] = []
    for row in csv.DictReader(table.splitlines(), delimiter="\t"):
        prefix = prefixes[row["part"]]
        if not prefix:
            history.append({})
        history[-1] |= {prefix + name: float(row[name]) for name in ("loss", "bits_per_char")}
    return history
