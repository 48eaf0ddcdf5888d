"""Failures of the computation, each in one line."""

import math

import tensorflow as tf

from stages.common.errors import StageError


def require_finite(loss: float, where: str) -> None:
    """Check a loss.

    Args:
        loss: the loss.
        where: the epoch and step that it is of.

    Raises:
        StageError: the loss is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise StageError(
            f"the loss is {loss} in {where}; lower train.learning_rate, set train.clip_norm (1, say; it has "
            "to be a number that float32 holds), or add train.warmup_epochs. Finished epochs are kept"
        )


def reason_of(error: tf.errors.OpError) -> str:
    """Say why an operation failed, without the places in the code and the operation's name."""
    return " ".join(error.message.split("\n\n")[-1].split("\n\t [[")[0].split())[:300]
