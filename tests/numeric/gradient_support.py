"""Gradients through Keras's layers and autodiff: what the fused steps are compared with."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.model.microbatches import over_microbatches
from stages.training.steps import keras_microbatch


def keras_gradients(model: keras.Sequential, microbatches: int = 1) -> Callable[..., Any]:
    """As `sequence_gradients`, through Keras."""
    return over_microbatches(keras_microbatch(model), microbatches)


def assert_near(ours: Any, expected: Any, loss: float, norm: float) -> None:
    """Losses at most `loss` apart but not equal; float32 gradients within the share `norm` of theirs."""
    (our_loss, gradients), (expected_loss, expected_gradients) = ours, expected
    assert float(our_loss) == pytest.approx(float(expected_loss), abs=loss)
    assert float(our_loss) != float(expected_loss)
    for mine, theirs in zip(gradients, expected_gradients, strict=True):
        assert mine.dtype == tf.float32
        assert np.linalg.norm(mine - theirs) < norm * np.linalg.norm(theirs)
