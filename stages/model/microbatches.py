"""Microbatches: a batch in equal parts, computed side by side, with gradients summed in a fixed order.

The parts do not meet before their gradients are summed, and every operation runs on one thread. So they
run side by side on as many cores as there are, and each bit of the result is the same on any number of
cores or workers.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

LossAndGradients = tuple[tf.Tensor, list[tf.Tensor]]
# (x, y, share, key, *state before) of one microbatch -> loss, gradients, *state after; share is each window's
# part of the batch's total weight, a state is tensors with a row for each window
MicrobatchGradients = Callable[..., tuple[Any, ...]]
# (x, y, weight, key, *state before) of a batch -> loss, gradients, *state after
BatchGradients = Callable[..., tuple[Any, ...]]


class Exchange(Protocol):
    """How workers that share out the microbatches get each other's gradients.

    Attributes:
        own: the microbatches of this process.
    """

    own: range

    def __call__(self, parts: list[LossAndGradients]) -> list[LossAndGradients]:
        """Return the results of all microbatches, in order, given those of `own`."""


def sum_in_order(*terms):
    """Sum tensors of equal shape from first to last, in float32 or wider.

    `tf.add_n` is no substitute: its kernel starts with whichever input's buffer is free, so about once in
    ten thousand steps, under load, it adds in another order. Nor is `+` outside XLA, which TensorFlow's
    graph optimizer turns into the same kernel.
    """
    (total,) = sums_in_order([[term] for term in terms])
    return total


def sums_in_order(parts: Sequence[Sequence[tf.Tensor]]) -> list[tf.Tensor]:
    """Sum the first tensors of all parts as `sum_in_order` does, then the second ones, and so on.

    All sums are one program, so there is one compilation.

    Args:
        parts: at least one, of equally many tensors; those that are summed have equal shapes.

    Returns:
        The sums, in float32 or wider.
    """
    return _sums_by_xla(parts) if len(parts) > 1 else [tf.cast(term, _wide(term)) for term in parts[0]]


@tf.function(jit_compile=True, autograph=False)
def _sums_by_xla(parts):
    totals = [tf.cast(term, _wide(term)) for term in parts[0]]
    for part in parts[1:]:
        totals = [total + tf.cast(term, total.dtype) for total, term in zip(totals, part, strict=True)]
    return totals


def _wide(term: tf.Tensor) -> tf.DType:
    return tf.float64 if term.dtype == tf.float64 else tf.float32


def fold_in(key: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Derive a key for random draws from another one and a number.

    Args:
        key: (2,) int32.
        number: for example that of a microbatch or a layer.

    Returns:
        (2,) int32. It is computed on the CPU, where the draws read it: a GPU would wait for its way back.
    """
    with tf.device("cpu"):
        return tf.random.experimental.stateless_fold_in(key, number, "philox")


def over_microbatches(
    gradients_of: MicrobatchGradients, microbatches: int, exchange: Exchange | None = None
) -> BatchGradients:
    """Compute the loss and gradients of a batch as the sum over its microbatches.

    Args:
        gradients_of: loss and gradients of one microbatch.
        microbatches: their number, which has to divide the batch.
        exchange: how to get the results of other workers; None where there are none.

    Returns:
        A function of x (rows, maxlen) and y (rows,), int32 indices, weight (batch,) float32, 0 for a row
        that only pads, and key (2,) int32, which random draws follow from. It returns the weighted mean
        loss and its gradients. `rows` is `batch`, or with an exchange the rows of its own microbatches. For
        models that carry a state it also takes and returns that, tensors of `rows` rows.
    """

    def gradients(x, y, weight, key, *state):
        own = exchange.own if exchange else range(microbatches)
        shares = tf.split(weight / tf.reduce_sum(weight), microbatches)[own.start : own.stop]
        keys = [fold_in(key, n) for n in own]
        rows = [tf.split(x, len(own)), tf.split(y, len(own)), shares, keys]
        rows += [tf.split(tensor, len(own)) for tensor in state]
        results = [gradients_of(*part) for part in zip(*rows, strict=True)]
        parts = [(loss, own_gradients) for loss, own_gradients, *_ in results]
        if exchange:
            parts = exchange(parts)
        loss, *sums = sums_in_order([[loss, *own_gradients] for loss, own_gradients in parts])
        after = [
            tf.concat(tensors, axis=0) for tensors in zip(*(rest for _, _, *rest in results), strict=True)
        ]
        return loss, sums, *after

    return gradients
