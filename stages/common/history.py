"""The history of a training run: metrics of each epoch, as a table and as a summary."""

import csv
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
    return losses.index(min(losses)) if losses else None


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


def summary_of(history: Sequence[Metrics], kept: int) -> dict[str, Any]:
    """Summarize a run for `dvc metrics show`.

    Args:
        history: the metrics of each epoch, at least one.
        kept: the epoch whose weights the final model has.

    Returns:
        Loss and bits per character of that epoch; with a validation split also its validation loss, and
        the best epoch.
    """
    summary: dict[str, Any] = {
        name: history[kept][name] for name in ("loss", "bits_per_char", "val_loss") if name in history[kept]
    }
    best = best_epoch(history)
    return summary if best is None else summary | {"best_epoch": best}


def table_of(history: Sequence[Metrics]) -> str:
    """Write the history as a tab-separated table, a row for each epoch and part of the text."""
    lines = ["epoch\tpart\tloss\tbits_per_char"]
    for epoch, metrics in enumerate(history):
        lines.append(f"{epoch}\ttraining\t{metrics['loss']}\t{metrics['bits_per_char']}")
        if "val_loss" in metrics:
            lines.append(f"{epoch}\tvalidation\t{metrics['val_loss']}\t{metrics['val_bits_per_char']}")
    return "\n".join(lines) + "\n"


def history_of(table: str) -> list[Metrics]:
    """Read the table that `table_of` wrote."""
    history: list[Metrics] = []
    for row in csv.DictReader(table.splitlines(), delimiter="\t"):
        if row["part"] == "training":
            history.append({})
        prefix = "" if row["part"] == "training" else "val_"
        history[-1] |= {prefix + name: float(row[name]) for name in ("loss", "bits_per_char")}
    return history
