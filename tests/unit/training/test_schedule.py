"""Learning-rate schedules against Keras's."""

import keras
import numpy as np

from stages.common.params import Train
from stages.training.schedule import learning_rate_at
from tests.support import changed_params


def test_schedules_are_keras_s():
    def rates(steps=7, count=100, **settings):
        train = Train(**changed_params()["train"] | {"learning_rate": 0.5} | settings)
        return [learning_rate_at(train, step, steps) for step in range(count)]

    schedules = keras.optimizers.schedules
    assert rates() == [0.5] * 100
    cosine = schedules.CosineDecay(0.5, decay_steps=35, alpha=0.2)
    ours = rates(schedule="cosine", decay_epochs=5, decay=0.2)
    np.testing.assert_allclose(ours, [cosine(step) for step in range(100)], rtol=1e-5)
    stairs = schedules.ExponentialDecay(0.5, decay_steps=14, decay_rate=0.3, staircase=True)
    ours = rates(schedule="step", decay_epochs=2, decay=0.3)
    np.testing.assert_allclose(ours, [stairs(step) for step in range(100)], rtol=1e-5)
    # Keras counts the steps that a warm-up has done from 0, so that its first step learns nothing
    warm = schedules.CosineDecay(0.0, decay_steps=35, alpha=0.2, warmup_target=0.5, warmup_steps=21)
    ours = rates(schedule="cosine", decay_epochs=5, decay=0.2, warmup_epochs=3)
    np.testing.assert_allclose(ours[:21], [warm(float(step)) for step in range(1, 22)], rtol=1e-5)
    np.testing.assert_allclose(ours[21:], [warm(float(step)) for step in range(21, 100)], rtol=1e-5)
    assert rates(warmup_epochs=0.5, steps=4, count=4) == [0.25, 0.5, 0.5, 0.5]
