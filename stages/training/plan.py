"""The plan of an epoch: its windows in their order, the keys of its draws, its learning rates."""

import math

import numpy as np

from stages.common.params import Train
from stages.common.randomness import keyed_generator
from stages.training.schedule import learning_rate_at


class Plan:
    """What each epoch learns from.

    Passes over all windows follow on each other, each in an order of its own. An epoch is one pass, or with
    `train.steps_per_epoch` the next so many batches of all passes in a row, one pass at most.

    Attributes:
        batch_size: windows in a batch, not more than there are.
        windows: in an epoch.
        steps: of the optimizer in an epoch.
    """

    def __init__(self, train: Train, n: int) -> None:
        """Prepare the plan.

        Args:
            train: the section `train` of `params.yaml`.
            n: the training windows.
        """
        self._train, self._n = train, n
        self.batch_size = min(train.batch_size, n)
        # rows that carry a state read equally many windows; what is left over is left out
        self._in_pass = n // self.batch_size * self.batch_size if train.state == "carried" else n
        steps = train.steps_per_epoch
        self.windows = min(steps * self.batch_size, self._in_pass) if steps else self._in_pass
        self.steps = math.ceil(self.windows / self.batch_size)

    def __call__(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Plan an epoch. Nothing is carried over from the epochs before it.

        Args:
            epoch: counted from 0.

        Returns:
            The order of its windows, one batch after the other; (steps, 2) int32 keys, which dropout draws
            from; (steps,) float32 learning rates.
        """
        number, first = divmod(epoch * self.windows, self._in_pass)
        order = self._order_of_pass(number)[first : first + self.windows]
        if rest := self.windows - len(order):
            order = np.concatenate([order, self._order_of_pass(number + 1)[:rest]])
        draws = keyed_generator(self._train.seed, "dropout", epoch)
        keys = draws.integers(2**31, size=(self.steps, 2), dtype=np.int32)
        steps = range(epoch * self.steps, (epoch + 1) * self.steps)
        rates = [learning_rate_at(self._train, step, self.steps) for step in steps]
        return order, keys, np.array(rates, np.float32)

    def _order_of_pass(self, number: int) -> np.ndarray:
        """Draw the order of the windows in a pass. Each row of the batches that carry a state has a lane."""
        n = self._n
        if self._train.state == "carried":
            steps = n // self.batch_size
            start = keyed_generator(self._train.seed, "start of lanes", number).integers(n)
            lanes = start + np.arange(self.batch_size) * steps
            return ((np.arange(steps)[:, None] + lanes) % n).ravel()
        order = np.arange(n, dtype=np.min_scalar_type(n))
        keyed_generator(self._train.seed, "order of windows", number).shuffle(order)
        return order
