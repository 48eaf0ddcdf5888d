"""The training loop of a CPU: one compiled step at a time, its batch computed in microbatches."""

import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from stages.common.params import Train
from stages.distributed.strategy import AllGather, Distribution
from stages.model.fused_lstm import applies_to, fused_gradients
from stages.model.fused_sequence import Regularization, sequence_gradients, stack_of
from stages.text.windows import Windows
from stages.training.plan import Plan
from stages.training.steps import padded, train_step


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
        train: Train,
        distribution: Distribution,
        windows: Windows,
        plan: Plan,
    ) -> None:
        """Prepare the compiled step; its first call compiles it.

        Args:
            model: a compiled model.
            microbatches: of a batch, on all processes together.
            train: the section `train` of `params.yaml`.
            distribution: the processes that train together.
            windows: the training windows.
            plan: what each epoch learns from.
        """
        self.begun = self.done = 0
        self._optimizer, self._windows, self._size = model.optimizer, windows, plan.batch_size
        # a multiple of the microbatches, filled up with rows of weight 0
        self._rows = math.ceil(self._size / microbatches) * microbatches
        own = distribution.own(microbatches)
        self._own = slice(own.start * self._rows // microbatches, own.stop * self._rows // microbatches)
        exchange = AllGather(distribution, microbatches) if distribution.workers > 1 else None
        dtype = tf.bfloat16 if train.precision == "mixed_bfloat16" else tf.float32
        rows = self._own.stop - self._own.start
        self._state: list[tf.Tensor] = []
        is_articles = applies_to(model)
        if is_articles:
            gradients = fused_gradients(model, microbatches, dtype, exchange)
        else:
            regularization = Regularization(
                train.weight_dropout,
                train.embedding_dropout,
                train.variational_dropout,
                train.tied_embedding,
            )
            gradients = sequence_gradients(model, microbatches, dtype, exchange, regularization)
            if train.state == "carried":
                self._state = stack_of(model).zero_state(rows, dtype)
        # one kernel for the update, but not for the article's, whose bytes would be others
        self.step = train_step(gradients, model, self._rows, rows, self._state, not is_articles)

    def __call__(self, order: np.ndarray, keys: np.ndarray, rates: np.ndarray) -> Iterator[list[float]]:
        """Take the steps of an epoch.

        Args:
            order: the epoch's order of the windows.
            keys: (steps, 2) int32, which dropout draws from.
            rates: (steps,) float32 learning rates.

        Yields:
            The loss of the next step.
        """
        rate = before = None
        for step, key in enumerate(keys):
            if rates[step] != rate:
                self._optimizer.learning_rate = rate = rates[step]
            self.begun += 1
            chosen = order[step * self._size :][: self._size]
            loss = float(self._take(chosen, key, before))
            before = chosen
            self.done += 1
            yield [loss]

    def _take(self, chosen: np.ndarray, key: np.ndarray, before: np.ndarray | None) -> tf.Tensor:
        """Take a step. A window that follows on the one in its row of the step before has its state."""
        batch = self.batch(chosen)
        if not self._state:
            return self.step(*batch, key)
        goes_on = np.zeros(len(batch[0]), bool)
        if before is not None:
            own = chosen[self._own] == before[self._own] + 1
            goes_on[: len(own)] = own
        loss, *self._state = self.step(*batch, key, goes_on, *self._state)
        return loss

    def batch(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Collect this process's rows of a batch, x and y, and the weights of all rows."""
        own, at = chosen[self._own], self._own
        x, y, _ = padded(self._windows.x[own], self._windows.y[own], at.stop - at.start)
        return x, y, (np.arange(self._rows) < len(chosen)).astype(np.float32)
