"""Surprise, against Keras's own prediction of one window at a time, and against stateful layers."""

import itertools
from typing import Any

import keras
import numpy as np
import pytest

from stages.model import scoring
from stages.model.architecture import build_model

MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"units": 7},
    "gru": {"units": 6, "cell": "gru"},
    "rnn": {"units": 5, "cell": "rnn"},
    "two layers": {"units": 5, "layers": 2, "dropout": 0.3},
    "embedding": {"units": 6, "embedding": 3},
}
MAXLEN, SIZE = 5, 9


def a_model(kind):
    """A model whose biases are not zero, so that a window of no characters differs from a uniform guess."""
    model = build_model(MAXLEN, SIZE, **MODELS[kind])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.6, weight.shape) for weight in model.get_weights()])
    return model


def of_any_length(model, batch=None, **options):
    """The same layers with the same weights, for windows of any length; options of the recurrent ones."""
    layers = [keras.Input((None, SIZE), batch_size=batch)]
    for layer in model.layers:
        config = layer.get_config() | (options if isinstance(layer, keras.layers.RNN) else {})
        layers.append(type(layer).from_config(config))
    other = keras.Sequential(layers)
    other.set_weights(model.get_weights())
    return other


def text_of(length):
    return np.random.default_rng(1).integers(0, SIZE, length).astype(np.uint8)


def one_hot(indices):
    return np.eye(SIZE, dtype=np.float32)[indices][None]


def of_nothing(model):
    """Softmax of the bias: what the topmost layer makes of a zero state."""
    bias = model.layers[-1].bias.numpy().astype(np.float64)
    return np.exp(bias) / np.exp(bias).sum()


def naive_by_windows(model, text):
    naive = of_any_length(model)
    bits = [-np.log2(of_nothing(model)[text[0]])]
    for at in range(1, len(text)):
        window = one_hot(text[max(at - MAXLEN, 0) : at])
        bits.append(-np.log2(naive.predict_on_batch(window)[0, text[at]]))
    return bits


@pytest.fixture
def pieces(monkeypatch):
    """14 characters take three pieces, the last one of two."""
    monkeypatch.setattr(scoring, "AT_ONCE", 6)


@pytest.mark.parametrize("kind", MODELS)
def test_each_character_is_predicted_from_the_window_before_it(kind, pieces):
    model, text = a_model(kind), text_of(14)
    got = scoring.surprise(model, text)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, naive_by_windows(model, text), atol=2e-5)


def test_what_lies_before_the_first_character_is_only_read(pieces):
    model, text = a_model("lstm"), text_of(14)
    expected = naive_by_windows(model, text)[9:]
    np.testing.assert_allclose(scoring.surprise(model, text, first=9), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["gru", "two layers"])
def test_a_carried_state_has_read_everything_before(kind, pieces):
    model, text = a_model(kind), text_of(14)
    with_state = of_any_length(model, batch=1, stateful=True)
    expected = [-np.log2(of_nothing(model)[text[0]])]
    for before, character in itertools.pairwise(text):
        expected.append(-np.log2(with_state.predict_on_batch(one_hot([before]))[0, character]))
    got = scoring.surprise(model, text, carried=True)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    windows = np.array(naive_by_windows(model, text))
    assert np.abs(got - windows)[MAXLEN + 1 :].max() > 1e-4  # it knows more than a window
