"""Learning-rate schedules: constant, in steps or along a cosine, after a linear warm-up."""

import math

from stages.common.params import Train


def is_constant(train: Train) -> bool:
    """Tell whether the learning rate never changes."""
    return train.schedule == "constant" and train.warmup_epochs == 0


def learning_rate_at(train: Train, step: int, steps: int) -> float:
    """Compute the learning rate of an optimizer step.

    The last step of the warm-up has the full `learning_rate`; the schedule begins after it. The result
    depends on the step's number alone: nothing is carried from step to step, and the number of epochs has
    no influence.

    Args:
        train: the section `train` of `params.yaml`.
        step: the step, counted from 0 over all epochs.
        steps: optimizer steps in an epoch.

    Returns:
        The learning rate.
    """
    warmup = train.warmup_epochs * steps
    if step < warmup:
        return train.learning_rate * min(1, (step + 1) / warmup)
    progress = (step - warmup) / (train.decay_epochs * steps)
    if train.schedule == "step":
        return train.learning_rate * train.decay ** math.floor(progress)
    if train.schedule == "cosine":
        fallen = (1 - math.cos(math.pi * min(progress, 1))) / 2
        return train.learning_rate * (1 - fallen * (1 - train.decay))
    return train.learning_rate
