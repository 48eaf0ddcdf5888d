"""The training loop of a CPU: one compiled step at a time, its batch computed in microbatches."""

import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from stages.distributed.strategy import AllGather, Distribution
from stages.model.fused_lstm import applies_to, fused_gradients
from stages.text.windows import Windows
from stages.training.steps import keras_gradients, padded, train_step


class HostLoop:
    """Takes the optimizer steps of an epoch on a CPU.

    Attributes:
        step: the compiled step, of x, y, weight and key.
        begun: optimizer steps that were begun.
        done: optimizer steps that were done.
    """

    def __init__(
        self,
        model: keras.Sequential,
        microbatches: int,
        precision: str,
        distribution: Distribution,
        windows: Windows,
        size: int,
    ) -> None:
        """Prepare the compiled step; its first call compiles it.

        Args:
            model: a compiled model.
            microbatches: of a batch, on all processes together.
            precision: the parameter `train.precision`, float32 or mixed_bfloat16.
            distribution: the processes that train together.
            windows: the training windows.
            size: windows in a batch.
        """
        self.begun = self.done = 0
        self._optimizer, self._windows, self._size = model.optimizer, windows, size
        # a multiple of the microbatches, filled up with rows of weight 0
        self._rows = math.ceil(size / microbatches) * microbatches
        own = distribution.own(microbatches)
        self._own = slice(own.start * self._rows // microbatches, own.stop * self._rows // microbatches)
        exchange = AllGather(distribution, microbatches) if distribution.workers > 1 else None
        if applies_to(model):
            dtype = tf.bfloat16 if precision == "mixed_bfloat16" else tf.float32
            gradients = fused_gradients(model, microbatches, dtype, exchange)
        else:
            gradients = keras_gradients(model, microbatches, exchange)
        self.step = train_step(gradients, model, self._rows, self._own.stop - self._own.start)

    def __call__(self, order: np.ndarray, keys: np.ndarray, rates: np.ndarray) -> Iterator[list[float]]:
        """Take the steps of an epoch.

        Args:
            order: the epoch's order of the windows.
            keys: (steps, 2) int32, which dropout draws from.
            rates: (steps,) float32 learning rates.

        Yields:
            The loss of the next step.
        """
        rate = None
        for step, key in enumerate(keys):
            if rates[step] != rate:
                self._optimizer.learning_rate = rate = rates[step]
            self.begun += 1
            loss = float(self.step(*self.batch(order[step * self._size :][: self._size]), key))
            self.done += 1
            yield [loss]

    def batch(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Collect this process's rows of a batch, x and y, and the weights of all rows."""
        own, at = chosen[self._own], self._own
        x, y, _ = padded(self._windows.x[own], self._windows.y[own], at.stop - at.start)
        return x, y, (np.arange(self._rows) < len(chosen)).astype(np.float32)
