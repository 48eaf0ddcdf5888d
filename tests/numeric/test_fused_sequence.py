"""What the fused sequence step has beside gradients: a carried state, regularization, bfloat16.

Its gradients are compared with the equations in `tests/numeric/test_models.py`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.model.architecture import build_model, compile_model
from stages.model.fused_sequence import sequence_gradients, sequence_losses, stack_of
from stages.model.microbatches import fold_in
from stages.model.regularization import Regularization, output_mask
from stages.training.steps import train_step
from tests.numeric.gradient_support import assert_near, keras_gradients

MAXLEN, SIZE, UNITS = 6, 5, 8
KEY = np.array([1, 2], np.int32)
ONES = np.ones(4, np.float32)


def random_model(**kind):
    model = build_model(MAXLEN, SIZE, UNITS, return_sequences=True, **kind)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.7, weight.shape) for weight in model.get_weights()])
    return model


def random_batch(rows, length=MAXLEN):
    rng = np.random.default_rng(1)
    text = rng.integers(0, SIZE, (rows, length + 1)).astype(np.int32)
    return text[:, :-1], text[:, -1]


def keras_losses(model, text):
    """Losses of each character but the first, by a model of Keras for texts of any length."""
    layers = [keras.Input((None, SIZE))]
    for layer in model.layers:
        layers.append(type(layer).from_config(layer.get_config()))
    any_length = keras.Sequential(layers)
    any_length.set_weights(model.get_weights())
    return keras.losses.sparse_categorical_crossentropy(text[:, 1:], any_length(np.eye(SIZE)[text[:, :-1]]))


@pytest.mark.parametrize(
    "kind", [{}, {"cell": "gru", "layers": 2, "embedding": 3}, {"cell": "rnn"}], ids=["lstm", "gru", "rnn"]
)
def test_a_carried_state_makes_one_text_of_two_windows(kind):
    model = random_model(**kind)
    x, y = random_batch(4, 2 * MAXLEN)
    text = np.concatenate([x, y[:, None]], axis=1)
    state = stack_of(model).zero_state(4, tf.float32)
    step = tf.function(sequence_gradients(model, 2), autograph=False)
    validation = tf.function(sequence_losses(model, 2), autograph=False)
    expected = keras_losses(model, text)
    of_validation = state
    for window in range(2):
        at = slice(window * MAXLEN, (window + 1) * MAXLEN)
        part, target = x[:, at], text[:, at.stop]
        losses, of_validation = validation(part, target, *of_validation)
        np.testing.assert_allclose(losses, expected[:, at], atol=1e-5)
        loss, gradients, *state = step(part, target, ONES, KEY, *state)
        assert float(loss) == pytest.approx(np.mean(expected[:, at]), abs=1e-5)

    # of the second window; the state before it is a constant
    hot = np.eye(SIZE, dtype=np.float32)[x]
    with tf.GradientTape() as tape:
        outputs, states = hot[:, MAXLEN:], []
        below = hot[:, :MAXLEN]
        for layer in model.layers[:-1]:
            if isinstance(layer, keras.layers.RNN):
                whole = type(layer).from_config(layer.get_config() | {"return_state": True})
                whole.build(below.shape)
                whole.set_weights(layer.get_weights())
                below, *states = whole(below)
                outputs = layer(outputs, initial_state=[tf.stop_gradient(each) for each in states])
            else:
                below, outputs = layer(below), layer(outputs)
        p = model.layers[-1](outputs)
        losses = keras.losses.sparse_categorical_crossentropy(text[:, MAXLEN + 1 :], p)
        expected_loss = tf.reduce_mean(losses)
    for ours, theirs in zip(gradients, tape.gradient(expected_loss, model.trainable_variables), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_row_that_does_not_go_on_begins_with_a_zero_state():
    model = random_model()
    compile_model(model, 1e-30)  # so that the weights stay
    x, y = random_batch(4)
    zero = stack_of(model).zero_state(4, tf.float32)
    step = train_step(sequence_gradients(model, 2), model, 4, state=zero)
    some = [np.full(each.shape, 0.5, np.float32) for each in zero]
    fresh, *after = step(x, y, ONES, KEY, np.zeros(4, bool), *some)
    loss, *after_zero = step(x, y, ONES, KEY, np.ones(4, bool), *zero)
    assert float(fresh) == float(loss)
    mixed, *after_mixed = step(x, y, ONES, KEY, np.array([True, False, False, True]), *some)
    assert float(mixed) != float(loss)
    for one, other, both in zip(after, after_zero, after_mixed, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(both[1:3], one[1:3])
        assert not np.array_equal(both[0], one[0])


def test_weight_dropout_is_dropconnect_on_the_recurrent_weights():
    """The mask is read off the gradient, which is 0 where a weight is left out."""
    model, masked = random_model(layers=2), random_model(layers=2)
    x, y = random_batch(4)
    regularization = Regularization(weight_dropout=0.25)
    step = tf.function(sequence_gradients(model, 2, regularization=regularization), autograph=False)
    loss, gradients = step(x, y, ONES, KEY)
    plain = tf.function(sequence_gradients(masked, 2), autograph=False)
    untouched, _ = plain(x, y, ONES, KEY)
    recurrent = [number for number, w in enumerate(model.weights) if "recurrent_kernel" in w.path]
    assert recurrent == [1, 4]
    scale = {number: (gradients[number].numpy() != 0) / 0.75 for number in recurrent}
    shares = [np.mean(each == 0) for each in scale.values()]
    assert np.mean(shares) == pytest.approx(0.25, abs=0.08)  # four standard deviations of 512 draws
    masked.set_weights([w * scale.get(number, 1) for number, w in enumerate(model.get_weights())])
    expected_loss, expected = plain(x, y, ONES, KEY)
    assert float(loss) == pytest.approx(float(expected_loss), abs=1e-6)
    assert abs(float(loss) - float(untouched)) > 1e-3
    for number, (ours, theirs) in enumerate(zip(gradients, expected, strict=True)):
        np.testing.assert_allclose(ours, theirs * scale.get(number, 1), atol=1e-6)
    again, _ = step(x, y, ONES, KEY)
    other, _ = step(x, y, ONES, KEY + 1)
    assert float(again) == float(loss) != float(other)


@pytest.mark.parametrize("embedding", [None, 3])
def test_embedding_dropout_leaves_out_characters_of_the_inputs(embedding):
    """Which ones is read off the gradient: their rows are 0, though each character is read."""
    model, masked = random_model(embedding=embedding), random_model(embedding=embedding)
    x = (np.arange(4 * MAXLEN, dtype=np.int32) % SIZE).reshape(4, MAXLEN)
    y = np.zeros(4, np.int32)
    assert len(np.unique(x)) == SIZE
    step = tf.function(
        sequence_gradients(model, 2, regularization=Regularization(embedding_dropout=0.25)), autograph=False
    )
    plain = tf.function(sequence_gradients(masked, 2), autograph=False)
    untouched, _ = plain(x, y, ONES, KEY)
    shares = []
    for number in range(20):
        loss, gradients = step(x, y, ONES, np.array([0, number], np.int32))
        scale = (gradients[0].numpy() != 0).any(axis=1, keepdims=True) / 0.75
        shares.append(np.mean(scale == 0))
        masked.set_weights([model.get_weights()[0] * scale, *model.get_weights()[1:]])
        expected_loss, expected = plain(x, y, ONES, KEY)
        assert float(loss) == pytest.approx(float(expected_loss), abs=1e-6)
        np.testing.assert_allclose(gradients[0], expected[0] * scale, atol=1e-6)
        np.testing.assert_allclose(gradients[1], expected[1], atol=1e-6)
    assert np.mean(shares) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / (20 * SIZE)) ** 0.5)
    assert abs(float(loss) - float(untouched)) > 1e-3


@pytest.mark.parametrize("variational", [True, False])
def test_variational_dropout_leaves_out_the_same_at_all_positions(variational):
    """A unit's rows in the gradient of the output layer are 0 where it is left out at every position."""
    model = random_model(dropout=0.5)
    plain = random_model()
    x, y = random_batch(1)
    regularization = Regularization(variational_dropout=variational)
    step = tf.function(sequence_gradients(model, 1, regularization=regularization), autograph=False)
    left_out, losses = [], []
    for key in range(40):
        loss, gradients = step(x, y, ONES[:1], np.array([0, key], np.int32))
        left_out.append(np.all(gradients[-2].numpy() == 0, axis=1))
        losses.append(float(loss))
    assert np.mean(left_out) == pytest.approx(0.5 if variational else 0.5**MAXLEN, abs=0.12)
    if variational:  # and the loss is that of outputs times 0 or 2
        weights = plain.get_weights()
        for gone, loss in zip(left_out[:3], losses, strict=False):
            plain.set_weights([*weights[:3], weights[3] * np.where(gone, 0, 2)[:, None], weights[4]])
            text = np.concatenate([x, y[:, None]], axis=1)
            assert loss == pytest.approx(float(np.mean(keras_losses(plain, text))), abs=1e-5)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [{"embedding": 3}, {"cell": "gru"}], ids=["lstm", "gru"])
def test_gradients_with_variational_dropout_are_those_of_autodiff(kind, dtype):
    model = random_model(layers=2, dropout=0.5, **kind)
    x, y = random_batch(4)
    regularization = Regularization(variational_dropout=True)
    ours = tf.function(sequence_gradients(model, 1, dtype, regularization=regularization), autograph=False)
    with tf.GradientTape() as tape:
        outputs = tf.one_hot(x, SIZE)
        for number, layer in enumerate(model.layers):
            if isinstance(layer, keras.layers.Dropout):
                mask = output_mask(fold_in(KEY, 0), number, 0.5, (MAXLEN, 4, UNITS), True)
                assert 0 < np.count_nonzero(mask) < tf.size(mask)
                outputs *= tf.transpose(mask, (1, 0, 2))
            else:
                outputs = layer(outputs)
        targets = np.concatenate([x, y[:, None]], axis=1)[:, 1:]
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(targets, outputs))
    expected = tape.gradient(loss, model.trainable_variables)
    if dtype == tf.bfloat16:
        assert_near(ours(x, y, ONES, KEY), (loss, expected), loss=0.02, norm=0.05)
        return
    our_loss, gradients = ours(x, y, ONES, KEY)
    assert float(our_loss) == pytest.approx(float(loss), abs=1e-5)
    for mine, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_tied_weights_stay_equal_and_have_the_sum_of_both_gradients():
    model, free = (random_model(embedding=UNITS) for _ in range(2))
    compile_model(model, 0.01, "adam", clip_norm=0.1, weight_decay=0.1)
    for each in (model, free):
        each.layers[-1].kernel.assign(np.transpose(each.layers[0].kernel))
    x, y = random_batch(4)
    _, gradients = tf.function(
        sequence_gradients(model, 2, regularization=Regularization(tied=True)), autograph=False
    )(x, y, ONES, KEY)
    _, apart = tf.function(keras_gradients(free), autograph=False)(x, y, ONES, KEY)
    np.testing.assert_allclose(gradients[0], apart[0] + np.transpose(apart[-2]), atol=1e-5)
    step = train_step(
        sequence_gradients(model, 2, regularization=Regularization(tied=True)), model, 4, compile_update=True
    )
    before = model.layers[0].kernel.numpy()
    for number in range(5):
        step(x, y, ONES, np.array([0, number], np.int32))
    after = model.layers[0].kernel.numpy()
    assert np.abs(after - before).min() > 1e-4
    np.testing.assert_array_equal(after.T, model.layers[-1].kernel)


@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("gru", 2)])
def test_products_in_bfloat16_are_near(cell, layers):
    model = random_model(cell=cell, layers=layers, embedding=3)
    x, y = random_batch(4)
    ours = tf.function(sequence_gradients(model, 2, tf.bfloat16), autograph=False)(x, y, ONES, KEY)
    expected = tf.function(keras_gradients(model), autograph=False)(x, y, ONES, KEY)
    assert_near(ours, expected, loss=0.02, norm=0.05)
