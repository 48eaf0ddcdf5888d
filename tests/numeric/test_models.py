"""Other cells, layers, optimizers and targets, against equations written out here."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from stages.common.errors import StageError
from stages.model.architecture import build_model, compile_model, recurrence
from stages.model.fused_sequence import sequence_gradients
from stages.text.windows import make_windows
from stages.training.host_loop import HostLoop
from stages.training.steps import train_step, validation_step
from stages.training.trainer import Trainer
from tests.numeric.gradient_support import keras_gradients
from tests.numeric.graph_support import run_graph, summands
from tests.support import EVERYTHING, FEW, make_text

MAXLEN, SIZE, UNITS = 6, 5, 4
KEY = np.array([1, 2], np.int32)
WAYS: dict[str, Callable[..., Any]] = {"fused": sequence_gradients, "keras": keras_gradients}
KINDS = {
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "two lstm layers": {"layers": 2},
    "two gru layers, embedding": {"cell": "gru", "layers": 2, "embedding": 3},
    "two rnn layers, embedding": {"cell": "rnn", "layers": 2, "embedding": 3},
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def naive_cell(cell, x, h, c, weights):
    """One step of one layer from the textbook; the GRU is Keras's and cuDNN's (Cho et al. 2014, v1)."""
    w, u, b = weights
    if cell == "rnn":
        return np.tanh(x @ w + h @ u + b), c
    if cell == "lstm":
        i, f, g, o = np.split(x @ w + h @ u + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    (xz, xr, xh), (hz, hr, hh) = np.split(x @ w + b[0], 3), np.split(h @ u + b[1], 3)
    z, r = sigmoid(xz + hz), sigmoid(xr + hr)
    return z * h + (1 - z) * np.tanh(xh + r * hh), c


def naive_logits(weights, window, cell="lstm", layers=1, embedding=None):
    """(len(window), SIZE) logits after each character, a window and a layer at a time, in float64."""
    weights = [np.asarray(weight, np.float64) for weight in weights]
    sequence = np.eye(SIZE)[window]
    if embedding is not None:
        sequence = sequence @ weights.pop(0)
    for layer in range(layers):
        h, c, outputs = np.zeros(UNITS), np.zeros(UNITS), []
        for x in sequence:
            h, c = naive_cell(cell, x, h, c, weights[3 * layer : 3 * layer + 3])
            outputs.append(h)
        sequence = np.array(outputs)
    return sequence @ weights[-2] + weights[-1]


def naive_loss(weights, x, y, return_sequences, **kind):
    """Mean over windows of the cross-entropy, at the last position or as the mean over all of them."""
    losses = []
    for window, target in zip(x, y, strict=True):
        logits = naive_logits(weights, window, **kind)
        targets = np.append(window[1:], target)
        each = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(targets)), targets]
        losses.append(each.mean() if return_sequences else each[-1])
    return np.mean(losses)


def random_model(return_sequences=False, **kind):
    model = build_model(MAXLEN, SIZE, UNITS, **kind, return_sequences=return_sequences)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.7, weight.shape) for weight in model.get_weights()])
    return model


def random_batch(rows):
    rng = np.random.default_rng(1)
    x = rng.integers(0, SIZE, (rows, MAXLEN)).astype(np.int32)
    return x, rng.integers(0, SIZE, rows).astype(np.int32)


# gradients through Keras's layers need no proof of each kind
@pytest.mark.parametrize(
    ("way", "kind"),
    [*(("fused", kind) for kind in KINDS), ("keras", "two gru layers, embedding")],
)
@pytest.mark.parametrize("return_sequences", [False, True], ids=["last", "all"])
def test_loss_and_gradients_are_those_of_the_equations(way, kind, return_sequences):
    kind = KINDS[kind]
    model = random_model(return_sequences, **kind)
    x, y = random_batch(8)
    weight = np.array([1, 1, 1, 1, 1, 0, 1, 0], np.float32)  # two rows only pad
    real = weight > 0
    step = tf.function(WAYS[way](model, 2), autograph=False)
    loss, gradients = step(x, y, weight, KEY)
    weights = [w.astype(np.float64) for w in model.get_weights()]
    expected = naive_loss(weights, x[real], y[real], return_sequences, **kind)
    assert float(loss) == pytest.approx(expected, abs=1e-5)

    rng = np.random.default_rng(2)
    for position, gradient in enumerate(gradients):
        index = tuple(rng.integers(0, weights[position].shape))
        around = []
        for nudge in (1e-5, -1e-5):
            moved = [w.copy() for w in weights]
            moved[position][index] += nudge
            around.append(naive_loss(moved, x[real], y[real], return_sequences, **kind))
        slope = (around[0] - around[1]) / 2e-5
        assert gradient.numpy()[index] == pytest.approx(slope, abs=1e-5)

    if way == "fused" and not return_sequences:
        return
    sums = validation_step(model, 8)(x, y, weight).numpy()
    last = naive_loss(weights, x[real], y[real], False, **kind)  # always the character after the window
    over_positions = [naive_loss(weights, x[real], y[real], True, **kind)] if return_sequences else []
    assert sums / 6 == pytest.approx([last, *over_positions], abs=1e-4)


@pytest.mark.parametrize("kind", [{}, *KINDS.values()], ids=["lstm", *KINDS])
def test_a_model_a_character_at_a_time(kind):
    model = random_model(**kind)
    sizes, advance, logits = recurrence(model)
    assert sizes == [UNITS] * kind.get("layers", 1) * (1 if kind.get("cell") in ("gru", "rnn") else 2)
    (window,), _ = random_batch(1)
    states = [np.zeros((1, size), np.float32) for size in sizes]
    for at, index in enumerate(window):
        output, states = advance(np.eye(SIZE, dtype=np.float32)[[index]], states)
        expected = naive_logits(model.get_weights(), window[: at + 1], **kind)[-1]
        np.testing.assert_allclose(logits(output)[0], expected, atol=1e-5)
    probabilities = np.exp(expected) / np.exp(expected).sum()
    np.testing.assert_allclose(model(np.eye(SIZE)[[window]])[0], probabilities, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_what_dropout_leaves_out_follows_from_the_key_alone(way):
    """One unit, kept with its value doubled or left out: two losses, each in half of the rows."""
    model = build_model(1, 2, 1, dropout=0.5)
    dense = [np.array([[3.0, 1.0]]), np.zeros(2)]
    model.set_weights([np.full(w.shape, 2.0) for w in model.get_weights()[:3]] + dense)
    x, y = np.zeros((2000, 1), np.int32), np.zeros(2000, np.int32)
    h = naive_cell("lstm", np.eye(2)[0], np.zeros(1), np.zeros(1), model.get_weights()[:3])[0][0]
    kept, left_out = np.log1p(np.exp((1 - 3) * 2 * h)), np.log(2)
    step = tf.function(WAYS[way](model, 2), autograph=False)
    losses = [float(step(x, y, np.ones(2000, np.float32), np.array([0, k]))[0]) for k in range(10)]
    share = (np.array(losses) - left_out) / (kept - left_out)  # of the rows that kept it
    assert np.mean(share) == pytest.approx(0.5, abs=0.015)  # four standard deviations
    assert 0.003 < np.std(share) < 0.025
    again = step(x, y, np.ones(2000, np.float32), np.array([0, 3]))[0]
    assert float(again) == losses[3]
    first, second = (
        float(step(x, y, np.repeat(half, 1000).astype(np.float32), KEY)[0]) for half in ([1, 0], [0, 1])
    )
    assert first != second  # microbatches do not leave out the same
    (total,) = validation_step(model, 2000)(x, y, np.ones(2000, np.float32)).numpy()
    assert total / 2000 == pytest.approx(np.log1p(np.exp((1 - 3) * h)), abs=1e-4)


@pytest.mark.parametrize("compiled", [False, True], ids=["", "compiled"])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_updates_clipping_decay_and_average_are_those_of_the_papers(optimizer, compiled):
    """With made-up gradients, 3 w - 1 times a number from 1 to 11 that each step and variable has."""
    model = random_model()
    built = compile_model(model, 0.02, optimizer, clip_norm=0.05, weight_decay=0.3, ema_momentum=0.8)
    x, y = random_batch(8)
    ones = np.ones(8, np.float32)

    def made_up(x, y, weight, key):
        return tf.constant(1.0), [
            (1 + 5 * tf.cast((k + key[0]) % 3, tf.float32)) * (3 * w - 1)
            for k, w in enumerate(model.trainable_variables)
        ]

    step = train_step(made_up, model, 8, compile_update=compiled)
    weights = [w.astype(np.float64) for w in model.get_weights()]
    mean, square, average = ([np.zeros_like(w) for w in weights] for _ in range(3))
    for t in range(1, 6):
        assert float(step(x, y, ones, np.array([t, 0], np.int32))) == 1.0
        gradients = [(1 + 5 * ((k + t) % 3)) * (3 * w - 1) for k, w in enumerate(weights)]
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        assert norm > 0.05
        for k, g in enumerate(gradients):
            g = g * 0.05 / norm
            if weights[k].ndim > 1:  # Loshchilov & Hutter 2019, algorithm 2, with its alpha the learning rate
                weights[k] -= 0.02 * 0.3 * weights[k]
            if optimizer == "rmsprop":
                square[k] = 0.9 * square[k] + 0.1 * g**2
                weights[k] -= 0.02 * g / np.sqrt(square[k] + 1e-7)
            else:
                mean[k], square[k] = 0.9 * mean[k] + 0.1 * g, 0.999 * square[k] + 0.001 * g**2
                rate = 0.02 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)  # the order of the paper's section 2
                weights[k] -= rate * mean[k] / (np.sqrt(square[k]) + 1e-7)
        for k, w in enumerate(weights):
            average[k] = w.copy() if t == 1 else 0.8 * average[k] + 0.2 * w
    averaged = random_model()
    built.finalize_variable_values(averaged.trainable_variables)
    for ours, expected in zip(averaged.get_weights(), average, strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-4)
    for ours, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-4)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_no_sum_depends_on_which_buffer_is_free(params, cell):
    """As the test of that name in test_fused_lstm.py."""
    settings = params(**EVERYTHING | {"vectorize__maxlen": 3, "model__cell": cell})
    trainer = Trainer(settings, make_windows(make_text(1500), settings.vectorize), "cpu")
    assert isinstance(trainer.loop, HostLoop)
    _, graphs = run_graph(trainer.loop.step, *trainer.loop.batch(np.arange(64)), KEY)
    assert any("MatMul" in node.op for nodes in graphs for node in nodes)
    assert summands(graphs) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_an_error(params, value):
    settings = params(**FEW, train__batch_size=64)
    trainer = Trainer(settings, make_windows(make_text(1000), settings.vectorize), "cpu")
    trainer.model.set_weights([np.full(w.shape, value) for w in trainer.model.get_weights()])
    with pytest.raises(
        StageError, match=r"the loss is nan in epoch 0, step 0 of 6; lower train\.learning_rate"
    ):
        trainer.epoch(0)


def test_a_weight_that_the_last_step_makes_infinite_is_an_error(params):
    """The loss of that step is of the weights before it, and there is no validation split to notice it."""
    settings = params(**FEW, train__batch_size=1000)
    trainer = Trainer(settings, make_windows(make_text(1000), settings.vectorize), "cpu")
    before = trainer.checkpoint("", {})
    averages = [np.full_like(array, np.nan) if array.ndim else array for array in before.optimizer]
    trainer.restore(dataclasses.replace(before, epoch=-1, optimizer=averages))
    with pytest.raises(StageError, match="the loss is nan in the step after epoch 0; lower"):
        trainer.epoch(0)
    assert (trainer.loop.begun, trainer.loop.done) == (1, 1)


def test_an_epoch_can_be_neither_skipped_nor_repeated(params):
    """So no caller can train a state on an epoch that it does not belong to."""
    settings = params(**FEW, train__batch_size=64)
    trainer = Trainer(settings, make_windows(make_text(500), settings.vectorize), "cpu")
    trainer.epoch(0)
    checkpoint = trainer.checkpoint("", {})
    assert checkpoint.epoch == 0
    for epoch in (0, 2):
        with pytest.raises(ValueError, match=f"the state is that before epoch 1, not {epoch}"):
            trainer.epoch(epoch)
    trainer.epoch(1)
    trainer.restore(checkpoint)
    trainer.epoch(1)
