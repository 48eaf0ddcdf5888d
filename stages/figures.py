"""What the figures of a run's epochs say about the run."""

from collections.abc import Sequence


def best_epoch(figures: Sequence[dict[str, float]]) -> int | None:
    """The first epoch of the lowest held-out loss, None where nothing is held out."""
    losses = [epoch["val_loss"] for epoch in figures if "val_loss" in epoch]
    return losses.index(min(losses)) if losses else None
