"""Gradients through Keras's layers and autodiff: what the fused steps are compared with."""

from collections.abc import Callable
from typing import Any

import keras

from stages.model.microbatches import over_microbatches
from stages.training.steps import keras_microbatch


def keras_gradients(model: keras.Sequential, microbatches: int = 1) -> Callable[..., Any]:
    """As `sequence_gradients`, through Keras."""
    return over_microbatches(keras_microbatch(model), microbatches)
