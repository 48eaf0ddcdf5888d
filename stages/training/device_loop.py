"""The training loop of a GPU: many steps in one compiled function, so that the GPU seldom waits for the host.

The windows reach the device in the epoch's order, many batches at a time, while the steps before run. A
step takes its batch out of them on the device. Losses are read once the next steps have been started.

Why the windows do not lie on the device, looked up there by index: TensorFlow's `tf.gather` has no GPU
kernel for uint8, and as int64 they would take eight times the memory. An epoch's windows are a few MB, and
this way a text of any length fits.
"""

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from stages.distributed.strategy import Distribution, clip_sum_over_devices
from stages.model.microbatches import MicrobatchGradients
from stages.text.windows import Windows

READS = 50  # how often an epoch's losses are read, at most


class Chunk(NamedTuple):
    """The batches of several steps. Batches are filled up with rows, and a chunk with steps, of share 0."""

    x: tf.Tensor  # (steps, rows of this process, maxlen) indices
    y: tf.Tensor  # (steps, rows of this process) indices
    share: tf.Tensor  # (steps, rows) float32, each window's part of its batch's total weight
    keys: tf.Tensor  # (steps, 2) int32, which dropout draws from
    rates: tf.Tensor  # (steps,) float32 learning rates
    count: tf.Tensor  # int32, the steps to take


class DeviceLoop:
    """Takes the optimizer steps of an epoch on the devices of a distribution.

    Attributes:
        begun: runs of the compiled function that were begun, of several steps each.
        done: runs whose losses are known.
        cudnn_layers: layers that the compiled function computes with cuDNN, once it is compiled.
    """

    def __init__(
        self,
        gradients_of: MicrobatchGradients,
        model: keras.Model,
        distribution: Distribution,
        windows: Windows,
        size: int,
    ) -> None:
        """Prepare the compiled function; its first call compiles it.

        Args:
            gradients_of: loss and gradients of one device's rows.
            model: a compiled model, created in the strategy's scope.
            distribution: the processes or devices that train together.
            windows: the training windows.
            size: windows in a batch.
        """
        self.begun = self.done = self.cudnn_layers = 0
        self._strategy = distribution.strategy or tf.distribute.get_strategy()
        self._windows, self._size = windows, size
        self._rows = math.ceil(size / distribution.replicas)  # of a device
        own = distribution.own(distribution.replicas)
        self._own = slice(own.start * self._rows, own.stop * self._rows)
        self._all_rows = self._rows * distribution.replicas
        self._chunk = math.ceil(math.ceil(len(windows.x) / size) / READS)
        self._gradients_of, self._model = gradients_of, model
        self.run = tf.function(self._run, autograph=False)

    def __call__(self, order: np.ndarray, keys: np.ndarray, rates: np.ndarray) -> Iterator[list[float]]:
        """Take the steps of an epoch.

        Args:
            order: the epoch's order of the windows.
            keys: (steps, 2) int32, which dropout draws from.
            rates: (steps,) float32 learning rates.

        Yields:
            The losses of the next steps.
        """
        own = self._own.stop - self._own.start
        signature = (
            tf.TensorSpec((self._chunk, own, self._windows.maxlen), self._windows.x.dtype),
            tf.TensorSpec((self._chunk, own), self._windows.y.dtype),
            tf.TensorSpec((self._chunk, self._all_rows), tf.float32),
            tf.TensorSpec((self._chunk, 2), tf.int32),
            tf.TensorSpec((self._chunk,), tf.float32),
            tf.TensorSpec((), tf.int32),
        )
        chunks = tf.data.Dataset.from_generator(
            lambda: self._chunks(order, keys, rates), output_signature=signature
        )
        running: deque[tf.Tensor] = deque()
        for chunk in chunks.prefetch(1):
            running.append(self._start(Chunk(*chunk)))
            if len(running) > 1:
                yield self._losses(running.popleft())
        yield self._losses(running.popleft())

    def first_steps(self, order: np.ndarray, keys: np.ndarray, rates: np.ndarray) -> list[float]:
        """Take the first steps of an epoch, with arguments as for the whole, and return their losses."""
        chunk = next(self._chunks(order, keys, rates))
        return self._losses(self._start(Chunk(*map(tf.constant, chunk))))

    def _chunks(self, order: np.ndarray, keys: np.ndarray, rates: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """Collect the chunks of an epoch on the host."""
        for first in range(0, len(keys), self._chunk):
            count = min(self._chunk, len(keys) - first)
            place = np.full((self._chunk, self._all_rows), -1, np.int64)
            for step in range(count):
                chosen = order[(first + step) * self._size :][: self._size]
                place[step, : len(chosen)] = chosen
            own, weight = place[:, self._own], place >= 0
            x, y = self._windows.x[own], self._windows.y[own]
            x[own < 0], y[own < 0] = 0, 0  # -1 took the last window
            share = (weight / np.maximum(weight.sum(axis=1, keepdims=True), 1)).astype(np.float32)
            yield (
                *(x, y, share),
                np.resize(keys[first : first + count], (self._chunk, 2)),
                np.resize(rates[first : first + count], self._chunk),
                np.int32(count),
            )

    def _start(self, chunk: Chunk) -> tf.Tensor:
        """Start the steps of a chunk. Returns their losses, which are known later."""
        self.begun += 1
        x, y = (self._on_devices(array, self._own.start) for array in (chunk.x, chunk.y))
        losses = self.run(x, y, self._on_devices(chunk.share, 0), chunk.keys, chunk.rates, chunk.count)
        return losses[: int(chunk.count)]

    def _losses(self, running: tf.Tensor) -> list[float]:
        """Wait for the losses of steps that were started."""
        losses = running.numpy().tolist()
        self.done += 1
        return losses

    def _on_devices(self, array: tf.Tensor, first: int) -> tf.Tensor:
        """Copy to each device its rows of an array whose second axis starts with row `first`."""

        def of_device(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            at = context.replica_id_in_sync_group * self._rows - first
            return tf.identity(array[:, at : at + self._rows])

        return self._strategy.experimental_distribute_values_from_function(of_device)

    def _run(self, x, y, share, keys, rates, count):
        """Take the steps of a chunk (the compiled function): fields of a `Chunk` -> (steps,) losses."""
        model, strategy = self._model, self._strategy

        def step(at, losses):
            def on_device(x, y, share):
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                key = tf.random.experimental.stateless_fold_in(keys[at], replica, "philox")
                batch = tf.cast(x[at], tf.int32), tf.cast(y[at], tf.int32)
                loss, gradients = self._gradients_of(*batch, share[at], key)
                kinds = [operation.type for operation in loss.graph.get_operations()]
                self.cudnn_layers = sum(kind in ("CudnnRNN", "CudnnRNNV2", "CudnnRNNV3") for kind in kinds)
                gradients = clip_sum_over_devices(gradients, model.optimizer.global_clipnorm)
                model.optimizer.apply(gradients, model.trainable_variables)
                return loss

            model.optimizer.learning_rate.assign(rates[at])
            loss = strategy.reduce("SUM", strategy.run(on_device, args=(x, y, share)), axis=None)
            return at + 1, losses.write(at, loss)

        losses = tf.TensorArray(tf.float32, size=keys.shape[0], element_shape=())
        _, losses = tf.while_loop(lambda at, _: at < count, step, (0, losses), parallel_iterations=1)
        return losses.stack()
