"""What the trainer gives each optimizer step: the learning rate and the key of dropout."""

import math

import numpy as np
import pytest
import tensorflow as tf

from stages.text.windows import make_windows
from stages.training.host_loop import HostLoop
from stages.training.trainer import Trainer
from tests.support import make_text


@pytest.fixture
def recording(params):
    """A trainer whose step computes nothing and notes the learning rate and the key that it gets."""

    def make(**changes):
        settings = params(
            vectorize__maxlen=5, model__units=4, train__preview=0, train__batch_size=64, **changes
        )
        trainer = Trainer(settings, make_windows(make_text(1000), settings.vectorize), "cpu")
        seen: list[tuple[float, tuple[int, ...]]] = []

        def step(x, y, weight, key):
            seen.append((float(trainer.optimizer.learning_rate), tuple(np.asarray(key).tolist())))
            return tf.constant(1.0)

        assert isinstance(trainer.loop, HostLoop)
        trainer.loop.step = step
        return trainer, seen

    return make


def test_each_step_has_the_rate_of_its_own_number(recording):
    """Two epochs of 6 steps: 3 of warm-up, then half a cosine of 6 steps down to a tenth, then that."""
    trainer, seen = recording(
        train__learning_rate=0.5,
        train__warmup_epochs=0.5,
        train__schedule="cosine",
        train__decay_epochs=1,
        train__decay=0.1,
    )
    for epoch in range(2):
        trainer.epoch(epoch)
    falling = [0.05 + 0.45 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    expected = [0.5 / 3, 1 / 3, 0.5, *falling, 0.05, 0.05, 0.05]
    assert [rate for rate, _ in seen] == pytest.approx(expected, rel=1e-6)


def test_no_two_steps_leave_out_the_same_and_a_resumed_run_leaves_out_the_same(recording):
    trainer, seen = recording(model__dropout=0.5)
    trainer.epoch(0)
    checkpoint = trainer.checkpoint("", {})
    trainer.epoch(1)
    keys = [key for _, key in seen]
    assert len(keys) == len(set(keys)) == 12
    resumed, seen = recording(model__dropout=0.5)
    resumed.restore(checkpoint)
    resumed.epoch(1)
    assert [key for _, key in seen] == keys[6:]
    other, seen = recording(model__dropout=0.5, train__seed=1)
    other.epoch(0)
    assert not {key for _, key in seen} & set(keys)
