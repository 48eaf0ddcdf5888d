"""One training on several GPUs, processes or hosts, by `tf.distribute`.

On CPUs the workers share out the streams of a batch (see `stages/lstm.py`). Every worker gathers the
gradients of all streams, adds them in the streams' own order and takes the same step with its own copy of
the model. Nothing is added before it is gathered, so one worker and many do the same arithmetic, to the
last bit. On GPUs each device takes an equal part of the batch and the strategy adds the gradients up
as it likes: the same step but for rounding.

Bytes that a worker receives in a step, with P parameters, S streams, W workers: 4 (P + 1) (S - S / W) on
CPUs; about 8 P (W - 1) / W for the sum of gradients on GPUs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from stages.lstm import Part, Step


@dataclass(frozen=True)
class Spread:
    """What a training is spread over.

    strategy: None for one device of one process. workers: processes that train together; index: this
    one's, 0 for the chief.
    """

    strategy: tf.distribute.Strategy | None = None
    workers: int = 1
    index: int = 0

    def own(self, parts: int) -> range:
        """This process's share of the parts of a batch: each worker has as many, or one more."""
        return range(self.index * parts // self.workers, (self.index + 1) * parts // self.workers)

    @property
    def replicas(self) -> int:
        """Devices that train together, on all hosts."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1


def spread_over(device: str, workers: int, index: int) -> Spread:
    """The strategy for these workers, found through `TF_CONFIG`, or for the GPUs of this host.

    Call it before TensorFlow computes anything; it returns once all workers have come.
    """
    if workers > 1:
        return Spread(tf.distribute.MultiWorkerMirroredStrategy(), workers, index)
    if device == "gpu" and len(tf.config.get_visible_devices("GPU")) > 1:
        return Spread(tf.distribute.MirroredStrategy())
    return Spread()


class AllGather:
    """The streams of all workers, for each of them (an `Exchange` of `stages/lstm.py`)."""

    def __init__(self, spread: Spread, streams: int) -> None:
        self.own = spread.own(streams)
        self._gather = _gather_over(spread)
        shares = [Spread(workers=spread.workers, index=n).own(streams) for n in range(spread.workers)]
        self._largest = max(map(len, shares))
        self._blocks = spread.workers * self._largest
        # the strategy has an order of its own among the workers; ask once whose rows come when
        order = tf.function(self._gather)(tf.constant([[spread.index]])).numpy()[:, 0].tolist()
        self._rows = [
            order.index(worker) * self._largest + n
            for worker, share in enumerate(shares)
            for n in range(len(share))
        ]

    def __call__(self, parts: list[Part]) -> list[Part]:
        """Everybody's parts in the order of the streams, from those of `own`."""
        shapes = [array.shape for loss, gradients in parts[:1] for array in (loss, *gradients)]
        sizes = [math.prod(shape) for shape in shapes]
        rows = [
            tf.concat([tf.reshape(array, [-1]) for array in (loss, *gradients)], axis=0)
            for loss, gradients in parts
        ]
        rows += [tf.zeros_like(rows[0])] * (self._largest - len(rows))  # workers' blocks are equally long
        everybody = tf.unstack(self._gather(tf.stack(rows)), num=self._blocks)
        gathered = []
        for row in self._rows:
            pieces = zip(tf.split(everybody[row], sizes), shapes, strict=True)
            loss, *gradients = (tf.reshape(piece, shape) for piece, shape in pieces)
            gathered.append((loss, gradients))
        return gathered


def _gather_over(spread: Spread) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function of rows that returns the rows of all workers, one after the other."""
    strategy = spread.strategy
    assert strategy is not None

    def gather(rows):
        def in_replica(rows):
            # the copy has a device, which the strategy asks for and an argument of a graph has not
            return tf.distribute.get_replica_context().all_gather(tf.identity(rows), axis=0)

        return strategy.run(in_replica, args=(rows,))

    return gather


def mirrored_step(of_part: Callable[..., Part], model: keras.Model, spread: Spread, batch: int) -> Step:
    """(x, y, weight, key) -> mean loss, as `optimizer_step`, on every device of a strategy.

    The model and its optimizer have to be made in the strategy's scope; the number of devices has to
    divide the batch. x and y hold the rows of this process's devices, weight those of all. The optimizer
    adds the gradients of all devices up by itself.
    """
    strategy = spread.strategy
    assert strategy is not None
    rows = batch // strategy.num_replicas_in_sync
    first = spread.own(strategy.num_replicas_in_sync).start

    def in_replica(x, y, share, key):
        loss, gradients = of_part(x, y, share, key)
        model.optimizer.apply(gradients, model.trainable_variables)
        return loss

    @tf.function(autograph=False)
    def on_all(x, y, share, key):
        return strategy.reduce("SUM", strategy.run(in_replica, args=(x, y, share, key)), axis=None)

    def step(x, y, weight, key):
        share = (weight / np.sum(weight)).astype(np.float32)

        def rows_of(array: np.ndarray, first: int):
            def of_device(context):
                at = (context.replica_id_in_sync_group - first) * rows
                return tf.constant(array[at : at + rows])

            return strategy.experimental_distribute_values_from_function(of_device)

        keys = strategy.experimental_distribute_values_from_function(
            lambda context: tf.random.experimental.stateless_fold_in(
                key, context.replica_id_in_sync_group, "philox"
            )
        )
        return on_all(rows_of(x, first), rows_of(y, first), rows_of(share, 0), keys)

    return step
