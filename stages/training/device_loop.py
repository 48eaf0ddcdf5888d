"""The training loop of a GPU: many steps in one compiled function, so that the GPU seldom waits for the host.

The windows reach the device in the epoch's order, many batches at a time, and may do so while the steps
before run. A step takes its batch out of them on the device. Losses are read once the next steps have been
started; each is read, so that the step of one that is not finite can be named.

Why the windows do not lie on the device, looked up there by index: TensorFlow's `tf.gather` has no GPU
kernel for uint8, and as int64 they would take eight times the memory. An epoch's windows are a few MB, and
this way a text of any length fits.
"""

import math
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from stages.distributed.strategy import Distribution, clip_sum_over_devices
from stages.model.microbatches import MicrobatchGradients, fold_in
from stages.text.windows import Windows
from stages.training.plan import Plan

READS = 50  # how often an epoch's losses are read, at most


class Chunk(NamedTuple):
    """The batches of several steps. Batches are filled up with rows, and a chunk with steps, of share 0."""

    x: np.ndarray  # (steps, rows of this process, maxlen) indices
    y: np.ndarray  # (steps, rows of this process) indices
    share: np.ndarray  # (steps, rows) float32, each window's part of its batch's total weight
    keys: np.ndarray  # (steps, 2) int32, which dropout draws from
    rates: np.ndarray  # (steps,) float32 learning rates
    taken: int  # the steps to take


class DeviceLoop:
    """Takes the optimizer steps of an epoch on the devices of a distribution.

    Attributes:
        begun: runs of the compiled function that were begun, of several steps each.
        done: runs whose losses are known.
        uses_cudnn: whether the compiled function computes its layers with cuDNN, once it is compiled.
    """

    def __init__(
        self,
        gradients_of: MicrobatchGradients,
        model: keras.Model,
        distribution: Distribution,
        windows: Windows,
        plan: Plan,
    ) -> None:
        """Prepare the compiled function; its first call compiles it.

        Args:
            gradients_of: loss and gradients of one device's rows.
            model: a compiled model, created in the strategy's scope.
            distribution: the processes or devices that train together.
            windows: the training windows.
            plan: what each epoch learns from.
        """
        self.begun = self.done = 0
        self.uses_cudnn = False
        self._strategy = distribution.strategy or tf.distribute.get_strategy()
        self._devices = distribution.strategy.extended.worker_devices if distribution.strategy else ()
        self._windows, self._size = windows, plan.batch_size
        self._rows = math.ceil(self._size / distribution.replicas)  # of a device
        own = distribution.own(distribution.replicas)
        self._own = slice(own.start * self._rows, own.stop * self._rows)
        self._all_rows = self._rows * distribution.replicas
        self._chunk = math.ceil(plan.steps / READS)
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
        running: deque[tf.Tensor] = deque()
        for chunk in self._chunks(order, keys, rates):
            running.append(self._start(chunk))
            if len(running) > 1:
                yield self._losses(running.popleft())
        yield self._losses(running.popleft())

    def first_steps(self, order: np.ndarray, keys: np.ndarray, rates: np.ndarray) -> list[float]:
        """Take the first steps of an epoch, with arguments as for the whole, and return their losses."""
        return self._losses(self._start(next(self._chunks(order, keys, rates))))

    def _chunks(self, order: np.ndarray, keys: np.ndarray, rates: np.ndarray) -> Iterator[Chunk]:
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
            yield Chunk(
                *(x, y, share),
                np.resize(keys[first : first + count], (self._chunk, 2)),
                np.resize(rates[first : first + count], self._chunk),
                count,
            )

    def _start(self, chunk: Chunk) -> tf.Tensor:
        """Start the steps of a chunk. Returns their losses, which are known later."""
        self.begun += 1
        x, y = (self._on_devices(array, self._own.start) for array in (chunk.x, chunk.y))
        share = self._on_devices(chunk.share, 0)
        of_steps = map(tf.constant, (chunk.keys, chunk.rates, chunk.taken))
        return self.run(x, y, share, *of_steps)[: chunk.taken]

    def _losses(self, running: tf.Tensor) -> list[float]:
        """Wait for the losses of steps that were started."""
        losses = running.numpy().tolist()
        self.done += 1
        return losses

    def _on_devices(self, array: np.ndarray, first: int) -> tf.Tensor:
        """Copy to each device its rows of an array whose second axis starts with row `first`."""
        if not (devices := self._devices):
            return tf.constant(array)

        def of_device(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            at = context.replica_id_in_sync_group * self._rows
            with tf.device(devices[(at - self._own.start) // self._rows]):
                return tf.constant(array[:, at - first : at - first + self._rows])

        return self._strategy.experimental_distribute_values_from_function(of_device)

    def _run(self, x, y, share, keys, rates, count):
        """Take the steps of a chunk (the compiled function): fields of a `Chunk` -> (steps,) losses."""
        model, strategy = self._model, self._strategy

        def step(at):
            def on_device(x, y, share):
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                key = fold_in(keys[at], replica)
                batch = tf.cast(x[at], tf.int32), tf.cast(y[at], tf.int32)
                loss, gradients = self._gradients_of(*batch, share[at], key)
                self.uses_cudnn = any(each.type == "CudnnRNNV3" for each in loss.graph.get_operations())
                gradients = clip_sum_over_devices(gradients, model.optimizer.global_clipnorm)
                model.optimizer.apply(gradients, model.trainable_variables)
                return loss

            model.optimizer.learning_rate.assign(rates[at])
            return strategy.reduce("SUM", strategy.run(on_device, args=(x, y, share)), axis=None)

        # Called, not inlined: without cuDNN Keras loops over time, and that loop is slower inside another one
        step = tf.function(step, autograph=False, experimental_attributes={"_noinline": True})
        losses = tf.TensorArray(tf.float32, size=keys.shape[0], element_shape=())
        _, losses = tf.while_loop(
            lambda at, _: at < count,
            lambda at, losses: (at + 1, losses.write(at, step(at))),
            (0, losses),
            parallel_iterations=1,
        )
        return losses.stack()
