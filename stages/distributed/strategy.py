"""Training on several GPUs, processes or hosts, by `tf.distribute`.

On CPUs the workers share out the microbatches. Every worker gathers the gradients of all microbatches,
adds them in order and takes the same step with its own copy of the model. Nothing is added before it is
gathered, so one worker and many do the same arithmetic, to the last bit. On GPUs each device takes an equal
part of the batch and the strategy sums the gradients in an order of its own: the same step but for
rounding.

Bytes that a worker receives in a step, with P parameters, M microbatches, W workers:
4 (P + 1) (M - M / W) on CPUs; about 8 P (W - 1) / W for the sum of gradients on GPUs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from stages.model.microbatches import LossAndGradients


@dataclass(frozen=True)
class Distribution:
    """What training is distributed over.

    Attributes:
        strategy: None for one device of one process.
        workers: processes that train together.
        index: this process, 0 for the coordinator.
    """

    strategy: tf.distribute.Strategy | None = None
    workers: int = 1
    index: int = 0

    def own(self, parts: int) -> range:
        """Share out the parts of a batch evenly.

        Args:
            parts: their number.

        Returns:
            The parts of this process.
        """
        return range(self.index * parts // self.workers, (self.index + 1) * parts // self.workers)

    @property
    def replicas(self) -> int:
        """Devices that train together, on all hosts."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1


def distribute(device: str, workers: int, index: int) -> Distribution:
    """Create the strategy for several workers, described by `TF_CONFIG`, or for the GPUs of this host.

    Call it before TensorFlow computes anything. It returns once all workers are connected.

    Args:
        device: cpu or gpu.
        workers: processes that train together.
        index: this process.

    Returns:
        The distribution.
    """
    if workers > 1:
        return Distribution(tf.distribute.MultiWorkerMirroredStrategy(), workers, index)
    if device == "gpu" and len(tf.config.get_visible_devices("GPU")) > 1:
        return Distribution(tf.distribute.MirroredStrategy())
    return Distribution()


class AllGather:
    """Gathers the gradients of all microbatches for every worker (an `Exchange`)."""

    def __init__(self, distribution: Distribution, microbatches: int) -> None:
        """Prepare the exchange.

        Args:
            distribution: several workers.
            microbatches: of a batch, on all workers together.
        """
        self.own = distribution.own(microbatches)
        self._gather = _gather_over(distribution)
        workers = distribution.workers
        shares = [Distribution(workers=workers, index=n).own(microbatches) for n in range(workers)]
        self._largest = max(map(len, shares))
        self._blocks = workers * self._largest
        # the strategy has its own order of the workers; find it out once
        gather = tf.function(self._gather, autograph=False)
        order = gather(tf.constant([[distribution.index]])).numpy()[:, 0].tolist()
        self._rows = [
            order.index(worker) * self._largest + n
            for worker, share in enumerate(shares)
            for n in range(len(share))
        ]

    def __call__(self, parts: list[LossAndGradients]) -> list[LossAndGradients]:
        """Return the results of all microbatches, in order, given those of `own`."""
        shapes = [array.shape for loss, gradients in parts[:1] for array in (loss, *gradients)]
        sizes = [math.prod(shape) for shape in shapes]
        rows = [
            tf.concat([tf.reshape(array, [-1]) for array in (loss, *gradients)], axis=0)
            for loss, gradients in parts
        ]
        rows += [tf.zeros_like(rows[0])] * (self._largest - len(rows))  # all workers' blocks are equally long
        all_rows = tf.unstack(self._gather(tf.stack(rows)), num=self._blocks)
        gathered = []
        for row in self._rows:
            pieces = zip(tf.split(all_rows[row], sizes), shapes, strict=True)
            loss, *gradients = (tf.reshape(piece, shape) for piece, shape in pieces)
            gathered.append((loss, gradients))
        return gathered


def _gather_over(distribution: Distribution) -> Callable[[tf.Tensor], tf.Tensor]:
    """Build a function of rows that returns the rows of all workers, one after the other."""
    strategy = distribution.strategy
    assert strategy is not None

    def gather(rows):
        def in_replica(rows):
            # the strategy asks for a device, which the copy has and an argument of a graph lacks
            return tf.distribute.get_replica_context().all_gather(tf.identity(rows), axis=0)

        return strategy.run(in_replica, args=(rows,))

    return gather


def clip_sum_over_devices(gradients: list[tf.Tensor], clip_norm: float | None) -> list[tf.Tensor]:
    """Prepare one device's gradients so that Keras clips the sum over all devices, as on one device.

    Keras clips each device's part and then sums the parts. Call this in `strategy.run`.

    Args:
        gradients: this device's part of the gradients.
        clip_norm: the largest norm of the sum; None for any.

    Returns:
        Gradients whose sum over the devices is clipped, and which none of Keras's clipping changes further.
    """
    replica = tf.distribute.get_replica_context()
    if clip_norm is None or replica.num_replicas_in_sync == 1:
        return gradients
    total, _ = tf.clip_by_global_norm(replica.all_reduce("SUM", gradients), clip_norm)
    return [each / replica.num_replicas_in_sync for each in total]
