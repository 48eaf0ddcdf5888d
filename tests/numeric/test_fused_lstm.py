"""The fused LSTM step against Keras's own layer, autodiff, finite differences and `fit`."""

import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.common.errors import StageError
from stages.model.architecture import build_model, compile_model
from stages.model.fused_lstm import applies_to, fused_gradients, loss_and_gradients
from stages.text.windows import make_windows
from stages.training.steps import train_step
from stages.training.trainer import Trainer
from tests.numeric.gradient_support import assert_near, keras_gradients
from tests.numeric.graph_support import run_graph, summands
from tests.support import make_text

MAXLEN, SIZE, UNITS = 5, 7, 6
KEY = np.array([1, 2], np.int32)  # of dropout


def random_batch(rows, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, SIZE, (rows, MAXLEN)).astype(np.int32),
        rng.integers(0, SIZE, rows).astype(np.int32),
    )


def random_model(seed=0):
    model = build_model(MAXLEN, SIZE, UNITS)
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    return model


def naive_loss(weights, x, y):
    """One window, one step, one gate at a time, in float64, from the equations of the LSTM."""
    w, u, b, dense, dense_bias = (np.asarray(weight, np.float64) for weight in weights)
    units = len(u)
    losses = []
    for window, target in zip(x, y, strict=True):
        h, c = np.zeros(units), np.zeros(units)
        for character in window:
            z = w[character] + b + h @ u
            i, f, o = (1 / (1 + np.exp(-z[k * units : (k + 1) * units])) for k in (0, 1, 3))
            c = f * c + i * np.tanh(z[2 * units : 3 * units])
            h = o * np.tanh(c)
        logits = h @ dense + dense_bias
        losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[target])
    return np.array(losses)


@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_loss_and_gradients_are_keras_s(microbatches):
    model = random_model()
    x, y = random_batch(8)
    weight = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.float32)  # two rows only pad
    loss, gradients = tf.function(fused_gradients(model, microbatches), autograph=False)(x, y, weight, KEY)
    with tf.GradientTape() as tape:
        p = model(tf.one_hot(x[:6], SIZE))
        expected = tf.reduce_mean(keras.losses.categorical_crossentropy(tf.one_hot(y[:6], SIZE), p))
    np.testing.assert_allclose(loss, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(loss, naive_loss(model.get_weights(), x[:6], y[:6]).mean(), atol=1e-5)
    for ours, theirs in zip(gradients, tape.gradient(expected, model.trainable_variables), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_gradients_are_the_slope_of_the_loss():
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, 0.5, w.shape) for w in random_model().get_weights()]
    x, y = random_batch(4, seed=3)
    share = np.full(4, 0.25)
    as_tensors = [tf.constant(w, tf.float64) for w in weights]
    _, gradients = tf.function(loss_and_gradients, autograph=False)(as_tensors, tf.constant(x), y, share)
    for position, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        for index in [tuple(rng.integers(0, weight.shape)) for _ in range(12)]:
            around = []
            for nudge in (1e-5, -1e-5):
                moved = [w.copy() for w in weights]
                moved[position][index] += nudge
                around.append(naive_loss(moved, x, y).mean())
            slope = (around[0] - around[1]) / 2e-5
            assert gradient.numpy()[index] == pytest.approx(slope, abs=1e-8)


def test_matrix_products_in_bfloat16_are_near():
    """bfloat16 has 8 bits, so each factor may be off by 2^-9 of itself, a gradient by some hundredths."""
    model = random_model()
    x, y = random_batch(64)
    weight = np.ones(64, np.float32)
    ours = tf.function(fused_gradients(model, 2, tf.bfloat16), autograph=False)(x, y, weight, KEY)
    expected = tf.function(keras_gradients(model), autograph=False)(x, y, weight, KEY)
    assert_near(ours, expected, loss=0.01, norm=0.03)


def test_tf32_is_refused_on_a_cpu(params):
    settings = params(vectorize__maxlen=MAXLEN, train__precision="tf32")
    with pytest.raises(StageError, match=r"train\.precision: got 'tf32'; takes float32 or mixed_bfloat16 on"):
        Trainer(settings, make_windows(make_text(500), settings.vectorize), "cpu")


def test_one_character_windows_have_no_recurrence():
    model = build_model(1, SIZE, UNITS)
    x, y = random_batch(4)
    _, gradients = tf.function(fused_gradients(model, 1), autograph=False)(
        x[:, :1], y, np.ones(4, np.float32), KEY
    )
    _, expected = tf.function(keras_gradients(model), autograph=False)(
        x[:, :1], y, np.ones(4, np.float32), KEY
    )
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_it_applies_to_the_articles_layer_only():
    def model(**settings):
        return keras.Sequential(
            [
                keras.Input((MAXLEN, SIZE)),
                keras.layers.LSTM(UNITS, **settings),
                keras.layers.Dense(SIZE, activation="softmax"),
            ]
        )

    assert applies_to(model())
    assert applies_to(random_model())
    for settings in (
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"use_bias": False},
        {"go_backwards": True},
        {"dropout": 0.1},
        {"recurrent_dropout": 0.1},
        {"kernel_regularizer": "l2"},
    ):
        assert not applies_to(model(**settings)), settings
    gru = [keras.Input((MAXLEN, SIZE)), keras.layers.GRU(UNITS), keras.layers.Dense(SIZE, "softmax")]
    assert not applies_to(keras.Sequential(gru))


@pytest.mark.parametrize("kind", ["fused", "bfloat16", "stock"])
def test_three_epochs_have_the_losses_of_fit(params, kind):
    """Plain `model.fit` with the same initial weights and order; 1,000 windows are not whole batches."""
    settings = params(
        vectorize__maxlen=MAXLEN,
        model__units=16,
        train__batch_size=128,
        train__microbatches=3,
        train__epochs=3,
        train__preview=0,
        train__precision="mixed_bfloat16" if kind == "bfloat16" else "float32",
    )
    windows = make_windows(make_text(3006), settings.vectorize)
    trainer = Trainer(settings, windows, "gpu" if kind == "stock" else "cpu")  # gpu: the stock layer
    size = len(windows.vocabulary)
    plain = build_model(MAXLEN, size, 16)
    plain.set_weights(trainer.model.get_weights())
    compile_model(plain, settings.train.learning_rate)
    for epoch in range(3):
        loss = trainer.epoch(epoch)["loss"]
        key = zlib.crc32(b"order of windows")
        order = np.random.Generator(np.random.PCG64([0, key, epoch])).permutation(len(windows.x))
        x, y = np.eye(size)[windows.x[order]], np.eye(size)[windows.y[order]]
        expected = plain.fit(x, y, batch_size=128, shuffle=False, verbose=0).history["loss"][0]
        tolerance = 0.01 if kind == "bfloat16" else 1e-5 if epoch == 0 else 1e-4
        assert loss == pytest.approx(expected, abs=tolerance)


def test_validation_and_test_losses_are_those_of_evaluate(params):
    settings = params(
        vectorize__maxlen=MAXLEN,
        vectorize__validation=0.2,
        vectorize__test=0.3,
        model__units=16,
        train__batch_size=64,
        train__microbatches=3,
    )
    windows = make_windows(make_text(2000), settings.vectorize)
    trainer = Trainer(settings, windows, "cpu")
    metrics = trainer.epoch(0)
    size = len(windows.vocabulary)
    x, y = np.eye(size)[windows.x_val], np.eye(size)[windows.y_val]
    assert len(x) % 64 != 0
    expected = trainer.model.evaluate(x, y, batch_size=64, verbose=0)
    assert metrics["val_loss"] == pytest.approx(expected, abs=1e-5)
    assert metrics["bits_per_char"] == pytest.approx(metrics["loss"] * np.log2(np.e))
    x, y = np.eye(size)[windows.x_test], np.eye(size)[windows.y_test]
    assert len(x) > len(windows.x_val)
    expected = trainer.model.evaluate(x, y, batch_size=64, verbose=0)
    metrics = trainer.evaluate(windows.x_test, windows.y_test, "test_")
    assert metrics["test_loss"] == pytest.approx(expected, abs=1e-5)
    assert metrics == {
        "test_loss": metrics["test_loss"],
        "test_bits_per_char": metrics["test_loss"] / np.log(2),
    }


def test_no_sum_depends_on_which_buffer_is_free():
    """TensorFlow's AddN starts with a free input buffer, so its order of addition is a race.

    Its graph optimizer makes AddN out of `+` too, so the graph is looked at that it leaves.
    """

    def added_while(kept):
        @tf.function(autograph=False)
        def total(x):
            a, b, c, d = parts = [tf.sin(x * (k + 1)) for k in range(4)]
            return a + b + c + d, *parts[:kept]

        result, graphs = run_graph(total, tf.random.stateless_normal((1000,), seed=(1, 2)))
        assert summands(graphs) == [["Sin"] * 4]
        return result[0].numpy()

    orders = {added_while(kept).tobytes() for kept in range(5)}
    assert len(orders) > 1  # different sums of the same numbers
    model = random_model()
    compile_model(model, 0.01)
    x, y = random_batch(8)
    step = train_step(fused_gradients(model, 4), model, 8)
    _, graphs = run_graph(step, x, y, np.ones(8, np.float32), KEY)
    assert any("MatMul" in node.op for nodes in graphs for node in nodes)
    assert summands(graphs) == []


def test_a_train_step_is_keras_s():
    ours, theirs = random_model(), random_model()
    x, y = random_batch(8)
    compile_model(ours, 0.01)
    compile_model(theirs, 0.01)
    step = train_step(fused_gradients(ours, 2), ours, 8)
    for _ in range(5):
        step(x, y, np.ones(8, np.float32), KEY)
        theirs.train_on_batch(np.eye(SIZE)[x], np.eye(SIZE)[y])
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)
