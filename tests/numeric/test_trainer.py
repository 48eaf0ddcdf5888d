"""What the trainer gives each optimizer step: the learning rate and the key of dropout."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.common.errors import StageError
from stages.text.windows import make_windows
from stages.train import require_two_steps
from stages.training.host_loop import HostLoop
from stages.training.trainer import Trainer
from stages.training.validation import WARM_UP
from tests.support import CARRIED, CARRIED_3, make_text


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


@pytest.fixture
def carried(params):
    """A trainer that carries its state, of 166 windows in 16 lanes."""

    def make(**changes):
        settings = params(**CARRIED | {"train__microbatches": 2} | changes)
        return Trainer(settings, make_windows(make_text(1870), settings.vectorize), "cpu")

    return make


def test_lanes_read_on_and_no_window_twice(carried):
    trainer = carried()
    n = len(trainer.windows.x)
    assert n % 16
    starts = set()
    for epoch in range(5):
        order, keys, _ = trainer.plan(epoch)
        steps = order.reshape(len(keys), 16)
        assert len(keys) == n // 16
        assert len(set(order.tolist())) == len(order) == n // 16 * 16
        assert (np.diff(steps, axis=0) % n == 1).all()  # each row of the batches reads on, around the end
        starts.add(int(steps[0, 0]))
    assert len(starts) == 5


def test_a_state_is_carried_but_not_from_the_texts_end_to_its_beginning(carried):
    trainer = carried()
    told = []

    def step(x, y, weight, key, goes_on, *state):
        told.append(goes_on)
        return tf.constant(1.0), *state

    trainer.loop.step = step
    trainer.epoch(0)
    trainer.epoch(1)
    steps = len(told) // 2
    for epoch in range(2):
        rows = trainer.plan(epoch)[0].reshape(steps, 16)
        expected = np.concatenate([np.zeros((1, 16), bool), (rows[1:] != 0)])
        np.testing.assert_array_equal(told[epoch * steps : (epoch + 1) * steps], expected)
    assert not np.all([each.all() for each in told])


def test_what_is_evaluated_kept_and_saved_is_the_average_of_the_weights(carried, tmp_path):
    trainer = carried(train__ema_momentum=0.5, train__batch_size=64, vectorize__validation=0.3, **CARRIED_3)
    seen = []
    step = trainer.loop.step

    def recorded(*arguments):
        result = step(*arguments)
        seen.append(trainer.model.get_weights())
        return result

    trainer.loop.step = recorded
    trainer.epoch(0)
    average = seen[0]
    for weights in seen[1:]:
        average = [0.5 * a + 0.5 * w for a, w in zip(average, weights, strict=True)]
    assert len(seen) > 1
    checkpoint = trainer.checkpoint("", {})
    trainer.save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras").get_weights()
    for ours, in_file, expected, last in zip(checkpoint.weights, saved, average, seen[-1], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        np.testing.assert_array_equal(ours, in_file)
        assert not np.allclose(ours, last, atol=1e-6)
    for ours, last in zip(checkpoint.training_weights, seen[-1], strict=True):
        np.testing.assert_array_equal(ours, last)


def test_the_validation_is_one_pass_with_a_state_that_goes_on(carried):
    """Against Keras's layers, stateless, on the whole split at once."""
    trainer = carried(vectorize__validation=0.5)
    rng = np.random.default_rng(0)  # an average that no training has to be compiled for
    average = [rng.normal(0, 0.3, each.shape).astype("f4") for each in trainer.model.get_weights()]
    trainer._evaluated.set_weights(average)
    assert not np.array_equal(trainer.model.get_weights()[0], average[0])
    x, y = trainer.windows.x_val, trainer.windows.y_val
    assert x.size > 64 * 9 > WARM_UP  # so that lanes begin within the text
    text = np.append(x.ravel(), y[-1]).astype(int)
    size = len(trainer.windows.vocabulary)
    layers = [type(layer).from_config(layer.get_config()) for layer in trainer.model.layers]
    whole = keras.Sequential([keras.Input((None, size)), *layers])
    whole.set_weights(average)
    p = whole.predict_on_batch(np.eye(size, dtype=np.float32)[None, text[:-1]])
    expected = float(np.mean(keras.losses.sparse_categorical_crossentropy(text[None, 1:], p)))
    assert trainer.evaluate(x, y, "val_")["val_loss"] == pytest.approx(expected, abs=2e-5)


def test_a_text_too_short_for_a_second_step_is_refused(params):
    settings = params(**CARRIED | {"train__batch_size": 100})
    windows = make_windows(make_text(1870), settings.vectorize)
    assert len(windows.x) < 200
    with pytest.raises(StageError, match=r"train\.state: got 'carried'; takes reset where there are"):
        require_two_steps(settings.train, windows)
    require_two_steps(params(**CARRIED).train, windows)
