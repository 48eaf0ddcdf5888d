"""Other cells, layers, optimizers, schedules and targets, against equations written out here."""

import collections
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.lstm import optimizer_step, stock_gradients, sum_of_losses
from stages.model import build_model, compile_model, recurrence
from stages.params import Train
from stages.trainer import Trainer, fingerprint, learning_rate_at, what_epochs_depend_on
from stages.vectorize import vectorize
from tests.conftest import changed_params, make_text

MAXLEN, SIZE, UNITS = 6, 5, 4
KEY = np.array([1, 2], np.int32)
KINDS = {
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "three lstm layers": {"layers": 3},
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


def naive_loss(weights, x, y, every_position, **kind):
    """Mean over windows of the cross-entropy, at the last position or as the mean over all of them."""
    losses = []
    for window, target in zip(x, y, strict=True):
        logits = naive_logits(weights, window, **kind)
        targets = np.append(window[1:], target)
        each = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(targets)), targets]
        losses.append(each.mean() if every_position else each[-1])
    return np.mean(losses)


def random_model(every_position=False, **kind):
    model = build_model(MAXLEN, SIZE, UNITS, **kind, every_position=every_position)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.7, weight.shape) for weight in model.get_weights()])
    return model


def random_batch(rows):
    rng = np.random.default_rng(1)
    x = rng.integers(0, SIZE, (rows, MAXLEN)).astype(np.int32)
    return x, rng.integers(0, SIZE, rows).astype(np.int32)


@pytest.mark.parametrize("every_position", [False, True], ids=["last", "all"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_loss_and_gradients_are_those_of_the_equations(kind, every_position):
    model = random_model(every_position, **kind)
    x, y = random_batch(8)
    weight = np.array([1, 1, 1, 1, 1, 0, 1, 0], np.float32)  # two rows only pad
    real = weight > 0
    step = tf.function(stock_gradients(model, 4))
    loss, gradients = step(x, y, weight, KEY)
    weights = [w.astype(np.float64) for w in model.get_weights()]
    expected = naive_loss(weights, x[real], y[real], every_position, **kind)
    assert float(loss) == pytest.approx(expected, abs=1e-5)

    rng = np.random.default_rng(2)
    for position, gradient in enumerate(gradients):
        index = tuple(rng.integers(0, weights[position].shape))
        around = []
        for nudge in (1e-5, -1e-5):
            moved = [w.copy() for w in weights]
            moved[position][index] += nudge
            around.append(naive_loss(moved, x[real], y[real], every_position, **kind))
        slope = (around[0] - around[1]) / 2e-5
        assert gradient.numpy()[index] == pytest.approx(slope, abs=1e-5)

    held_out = sum_of_losses(model, 8)(x, y, weight)  # always the character after the window
    last = naive_loss(weights, x[real], y[real], False, **kind)
    assert float(held_out) == pytest.approx(6 * last, abs=1e-4)


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


def test_what_dropout_leaves_out_follows_from_the_key_alone():
    """One unit, kept with its value doubled or left out: two losses, each in half of the rows."""
    model = build_model(1, 2, 1, dropout=0.5)
    dense = [np.array([[3.0, 1.0]]), np.zeros(2)]
    model.set_weights([np.full(w.shape, 2.0) for w in model.get_weights()[:3]] + dense)
    x, y = np.zeros((2000, 1), np.int32), np.zeros(2000, np.int32)
    h = naive_cell("lstm", np.eye(2)[0], np.zeros(1), np.zeros(1), model.get_weights()[:3])[0][0]
    kept, left_out = np.log1p(np.exp((1 - 3) * 2 * h)), np.log(2)
    step = tf.function(stock_gradients(model, 2))
    losses = [float(step(x, y, np.ones(2000, np.float32), np.array([0, k]))[0]) for k in range(10)]
    share = (np.array(losses) - left_out) / (kept - left_out)  # of the rows that kept it
    assert np.mean(share) == pytest.approx(0.5, abs=0.015)  # four standard deviations
    assert 0.003 < np.std(share) < 0.025
    again = step(x, y, np.ones(2000, np.float32), np.array([0, 3]))[0]
    assert float(again) == losses[3]
    first, second = (
        float(step(x, y, np.repeat(half, 1000).astype(np.float32), KEY)[0]) for half in ([1, 0], [0, 1])
    )
    assert first != second  # streams do not leave out the same
    assert float(sum_of_losses(model, 2000)(x, y, np.ones(2000, np.float32))) / 2000 == pytest.approx(
        np.log1p(np.exp((1 - 3) * h)), abs=1e-4
    )


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


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_updates_and_clipping_are_those_of_the_papers(optimizer):
    model, plain = random_model(), random_model()
    compile_model(model, 0.02, optimizer, clip_norm=0.05)
    x, y = random_batch(8)
    ones = np.ones(8, np.float32)
    step = optimizer_step(stock_gradients(model), model, 8)
    gradients_of = tf.function(stock_gradients(plain))
    weights = [w.astype(np.float64) for w in plain.get_weights()]
    mean, square = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for t in range(1, 6):
        step(x, y, ones, KEY)
        plain.set_weights(weights)
        gradients = [g.numpy().astype(np.float64) for g in gradients_of(x, y, ones, KEY)[1]]
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        assert norm > 0.05
        for k, g in enumerate(gradients):
            g = g * 0.05 / norm
            if optimizer == "rmsprop":
                square[k] = 0.9 * square[k] + 0.1 * g**2
                weights[k] -= 0.02 * g / np.sqrt(square[k] + 1e-7)
            else:
                mean[k], square[k] = 0.9 * mean[k] + 0.1 * g, 0.999 * square[k] + 0.001 * g**2
                rate = 0.02 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)  # the order of the paper's section 2
                weights[k] -= rate * mean[k] / (np.sqrt(square[k]) + 1e-7)
    for ours, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-4)


EVERYTHING = {
    "vectorize__maxlen": 9,
    "vectorize__validation": 0.2,
    "model__units": 12,
    "model__layers": 2,
    "model__dropout": 0.3,
    "model__embedding": 5,
    "train__batch_size": 64,
    "train__targets": "all",
    "train__optimizer": "adam",
    "train__schedule": "cosine",
    "train__warmup_epochs": 0.5,
    "train__decay_epochs": 3,
    "train__clip_norm": 1.0,
    "train__preview": 0,
}


@pytest.mark.parametrize(
    ("schedule", "change", "matters"),
    [
        ("constant", {"train__epochs": 3}, False),
        ("constant", {"train__cores": 1}, False),
        ("constant", {"train__workers": 2}, False),
        ("constant", {"train__worker_timeout": 5}, False),
        ("constant", {"train__decay": 0.5, "train__decay_epochs": 7}, False),
        ("cosine", {"train__decay": 0.5}, True),
        ("step", {"train__decay_epochs": 7}, True),
        ("constant", {"train__streams": 2}, True),
        ("constant", {"train__seed": 1}, True),
        ("constant", {"train__warmup_epochs": 1}, True),
        ("constant", {"model__units": 5}, True),
    ],
    ids=str,
)
def test_a_snapshot_is_another_s_where_its_numbers_would_be_others(params, schedule, change, matters):
    before, after = (
        fingerprint(what_epochs_depend_on(params(**settings), "cpu", "0" * 64))
        for settings in ({"train__schedule": schedule}, {"train__schedule": schedule, **change})
    )
    assert (before != after) == matters


@pytest.mark.parametrize("kind", ["the article's", "lstm", "gru", "rnn"])
def test_a_restored_state_goes_on_to_the_same_bytes(params, kind):
    article = {"vectorize__maxlen": 9, "model__units": 16, "train__batch_size": 64, "train__preview": 0}
    settings = params(**article if kind == "the article's" else EVERYTHING | {"model__cell": kind})
    windows = vectorize(make_text(1500), settings.vectorize)
    straight = Trainer(settings, windows, "cpu")
    straight.epoch(0)
    kept = straight.snapshot(0, "", {})
    resumed = Trainer(settings, windows, "cpu")
    resumed.restore(kept)
    assert straight.epoch(1) == resumed.epoch(1)
    for ours, theirs in zip(straight.model.get_weights(), resumed.model.get_weights(), strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_no_sum_depends_on_which_buffer_is_free(params, cell):
    """See the test of that name in test_lstm.py. The sum of two is the same either way, and so is that of
    a GRU's three gates, whose gradients are 0 where the others' are not (slices of one array).
    """
    settings = params(**EVERYTHING, model__cell=cell)
    trainer = Trainer(settings, vectorize(make_text(1500), settings.vectorize), "cpu")
    definition = trainer._step.get_concrete_function().graph.as_graph_def()  # type: ignore[attr-defined]
    sums: collections.Counter[int] = collections.Counter()
    for function in definition.library.function:
        made_by = {node.name: node.op for node in function.node_def}
        for node in function.node_def:
            if node.op == "AddN":
                summands = [made_by.get(name.split(":")[0]) for name in node.input]
                sums[len(summands)] += 1
                assert len(summands) <= 2 or set(summands) == {"StridedSliceGrad"}, node
    assert sums[2] > 0
    assert (sums[3] > 0) == (cell == "gru")
    assert "AddN" not in {node.op for node in definition.node}


def test_every_knob_at_once_in_the_pipeline(small):
    """Two GRU layers trained on all targets: the model keeps the article's shapes and texts follow it."""
    small.set_params(**EVERYTHING, model__cell="gru", train__keep="best", train__epochs=3)
    small.set_params(train__preview=5, sample__length=15)
    small.dvc("repro")
    model = keras.models.load_model(small.root / "models/model.keras")
    with np.load(small.root / "data/windows.npz") as file:
        x, y, charset = file["x_val"], file["y_val"], file["charset"]
    size = len(charset)
    assert model.input_shape == (None, 9, size)
    assert model.output_shape == (None, size)
    assert type(model.optimizer).__name__ == "Adam"
    metrics = json.loads(small.read("metrics/train/metrics.json"))
    held_out = model.evaluate(np.eye(size)[x], np.eye(size)[y], verbose=0)
    assert held_out == pytest.approx(metrics["best_val_loss"], abs=1e-4)

    lines = [json.loads(line) for line in small.read("metrics/samples.jsonl").splitlines()]
    best = [s for s in lines if (s["epoch"], s["temperature"]) == (metrics["best_epoch"], 0.0)]
    text = best[0]["prompt"]
    for _ in range(15):
        window = np.eye(size)[[list(charset).index(character) for character in text[-9:]]]
        text += charset[model.predict(window[None], verbose=0)[0].argmax()]
    assert best[0]["text"] == text[9:]
    command = ["python", "-m", "stages.generate", "--temperature", "0", "--length", "15"]
    assert small.run(*command).stdout == text[9:] + "\n"
    assert small.run(*command, "--epoch", str(metrics["best_epoch"])).stdout == text[9:] + "\n"
