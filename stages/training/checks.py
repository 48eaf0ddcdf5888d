"""Checks of training: whether a step has the precision, and whether a loss is finite."""

import math

from stages.common.errors import StageError


def require_precision(precision: str, device: str, fused: bool) -> None:
    """Check that a training step has a precision.

    Args:
        precision: the parameter `train.precision`.
        device: cpu or gpu.
        fused: whether the fused step computes the model.

    Raises:
        StageError: it has not.
    """
    if device == "cpu" and precision == "tf32":
        raise StageError(
            "train.precision: got 'tf32'; takes float32 or mixed_bfloat16 on a CPU, which has no TF32"
        )
    if device == "cpu" and precision != "float32" and not fused:
        raise StageError(
            f"train.precision: got {precision!r}; takes float32 here: on a CPU only the fused step of the "
            "article's model multiplies in bfloat16 (one lstm layer without dropout or embedding, "
            "train.targets: last)"
        )


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
