"""The loss of windows that training does not learn from."""

import math

import keras
import numpy as np
import tensorflow as tf

from stages.model.fused_sequence import sequence_losses, stack_of
from stages.training.steps import padded, validation_step

LANES = 64  # passages of the text that are read side by side where the state is carried
WARM_UP = 256  # characters that a lane reads before its first one that counts, where there are as many


class WindowValidation:
    """Computes the mean loss of windows, each read from a zero state."""

    def __init__(self, model: keras.Sequential, rows: int, microbatches: int) -> None:
        """Prepare the compiled step.

        Args:
            model: a model of `build_model`.
            rows: of a batch.
            microbatches: their number, which has to divide the batch.
        """
        self.rows = rows
        self.step = validation_step(model, rows, microbatches)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> list[float]:
        """Compute the mean losses.

        Args:
            x: (n, maxlen) indices.
            y: (n,) indices.

        Returns:
            The loss of the character after each window, in nats, and where the model predicts at every
            position that over the positions, too.
        """
        sums = [
            self.step(*padded(x[at : at + self.rows], y[at : at + self.rows], self.rows))
            for at in range(0, len(x), self.rows)
        ]  # a GPU computes on meanwhile
        read = zip(*(each.numpy().tolist() for each in sums), strict=True)
        return [sum(of_batches) / len(x) for of_batches in read]


class CarriedValidation:
    """Computes the mean loss of a text that is read once, with a state that is carried.

    The text is cut into lanes, which are read side by side. Each reads some characters before its first one
    that counts, so that its state is about that of a reader from the start.
    """

    def __init__(self, model: keras.Sequential, microbatches: int) -> None:
        """Prepare the compiled step.

        Args:
            model: a model of `build_model` that predicts at every position.
            microbatches: parts that are computed side by side.
        """
        self._lanes = math.ceil(LANES / microbatches) * microbatches
        losses = sequence_losses(model, microbatches)

        def step(x, y, goes_on, *state):
            return losses(x, y, *(tf.where(goes_on[:, None], each, 0) for each in state))

        self._step = tf.function(step, autograph=False)
        self._zero_state = stack_of(model).zero_state(self._lanes, tf.float32)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> list[float]:
        """Compute the mean loss.

        Args:
            x: (n, maxlen) indices, consecutive windows of a text.
            y: (n,) indices, the character after each.

        Returns:
            The loss of every character of the windows but the first, and of the last target, in nats.
        """
        each = math.ceil(len(x) / self._lanes)
        warm_up = math.ceil(WARM_UP / x.shape[1])
        starts = np.arange(self._lanes) * each
        total, state = 0.0, self._zero_state
        for step in range(-warm_up, each):
            rows = starts + step
            inside = np.clip(rows, 0, len(x) - 1)
            goes_on = (rows > 0) & (step > -warm_up)
            losses, state = self._step(
                np.array(x[inside], np.int32), np.array(y[inside], np.int32), goes_on, *state
            )
            if step >= 0:
                total += float(losses.numpy()[rows < len(x)].sum(dtype=np.float64))
        return [total / x.size]
