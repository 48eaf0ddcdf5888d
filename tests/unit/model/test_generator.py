"""Generation against the article's loop: one window at a time through Keras, written here."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from stages.common.errors import StageError
from stages.model.architecture import build_model
from stages.model.generator import Generator, draw, uniform_draws
from stages.text.vocabulary import encode_prompt

MAXLEN, SIZE, UNITS = 8, 11, 6
TEMPERATURES = [0.0, 0.2, 0.5, 1.0, 1.2]


@pytest.fixture(scope="module")
def model():
    model = build_model(MAXLEN, SIZE, UNITS)
    rng = np.random.default_rng(5)
    model.set_weights([rng.normal(0, 0.7, weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def any_length(model):
    """Keras's layers with the same weights, for windows of any length."""
    layers = [keras.Input((None, SIZE)), keras.layers.LSTM(UNITS), keras.layers.Dense(SIZE, "softmax")]
    any_length = keras.Sequential(layers)
    any_length.set_weights(model.get_weights())
    return tf.function(any_length, input_signature=[tf.TensorSpec((1, None, SIZE))])


def article_loop(any_length, prompt, temperature, uniform, window=MAXLEN):
    """Window of the last characters, zero state, log p / T, a draw by the cumulative distribution."""
    text, generated = list(prompt), []
    for u in uniform:
        read = np.eye(SIZE, dtype=np.float32)[text[-window:]][None]
        probabilities = any_length(read).numpy()[0].astype("float64")
        if temperature == 0:
            new = int(np.argmax(probabilities))
        else:
            scaled = np.exp(np.log(probabilities) / temperature)
            new = int(np.searchsorted(np.cumsum(scaled / scaled.sum()), u, side="right"))
        text.append(new)
        generated.append(new)
    return generated


@pytest.mark.parametrize(
    ("prompt_length", "carried"), [(1, False), (3, False), (MAXLEN, False), (1, True), (MAXLEN + 4, True)]
)
def test_text_is_the_article_loops_character_for_character(model, any_length, prompt_length, carried):
    """With a state that is carried, the window is all of the text so far."""
    length = 25
    prompt = np.random.default_rng(1).integers(0, SIZE, prompt_length)
    uniform = uniform_draws(7, 2, TEMPERATURES, length)
    texts = Generator(model, TEMPERATURES, length, carried)(prompt, uniform)
    assert texts.shape == (len(TEMPERATURES), length)
    window = prompt_length + length if carried else MAXLEN
    for row, temperature in enumerate(TEMPERATURES):
        expected = article_loop(any_length, prompt, temperature, uniform[:, row], window)
        assert list(texts[row]) == expected, temperature
    assert len({tuple(text) for text in texts}) == len(TEMPERATURES)


def test_new_weights_give_new_text(model):
    generate = Generator(model, [0.0], 30)
    before = generate(np.array([1, 2]), np.zeros((30, 1)))
    kept = model.get_weights()
    model.set_weights([-weight for weight in kept])
    after = generate(np.array([1, 2]), np.zeros((30, 1)))
    model.set_weights(kept)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(before, generate(np.array([1, 2]), np.zeros((30, 1))))


@pytest.mark.parametrize("temperature", [0.2, 0.5, 1.0, 1.2, 5.0])
def test_frequencies_are_softmax_of_log_p_over_t(temperature):
    count = 200_000
    p = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    uniform = np.random.default_rng(0).random(count)
    drawn = draw(tf.constant(np.tile(np.log(p), (count, 1))), np.full(count, temperature), uniform)
    expected = np.exp(np.log(p) / temperature)
    expected /= expected.sum()
    frequencies = np.bincount(drawn, minlength=len(p)) / count
    # five standard deviations of a binomial share
    assert np.all(np.abs(frequencies - expected) <= 5 * np.sqrt(expected * (1 - expected) / count))


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-12, 1e-3, 1e300])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_draws_are_stable_at_any_temperature(temperature, scale):
    logits = tf.constant(np.array([[0.1, 0.3, 0.2], [3, 1, 2]]) * scale, tf.float32)
    for u in (0.0, 0.5, 1 - 2**-53):
        drawn = draw(logits, np.full(2, temperature), tf.constant([u, u], tf.float64)).numpy()
        assert set(drawn) <= {0, 1, 2}
        if temperature < 1e-3 or scale > 1:
            if temperature < 1:
                assert list(drawn) == [1, 0]
        elif temperature > 1:
            assert list(drawn) == [int(u * 3)] * 2


def test_temperature_zero_is_arg_max():
    logits = np.array([[0.0, 1.0, 1.0], [2.0, 1.0, 0.0]])
    assert list(draw(tf.constant(logits), np.zeros(2), tf.constant([0.99, 0.99], tf.float64))) == [1, 0]


def test_draws_are_keyed():
    both = uniform_draws(1, 4, [0.5, 1.0], 10)
    np.testing.assert_array_equal(both[:, 1:], uniform_draws(1, 4, [1.0], 10))
    assert not np.array_equal(both[:, 0], both[:, 1])
    for other in (uniform_draws(2, 4, [0.5], 10), uniform_draws(1, 5, [0.5], 10)):
        assert not np.array_equal(both[:, :1], other)
    np.testing.assert_array_equal(uniform_draws(1, 4, [0.5], 20)[:10], both[:, :1])


def test_prompts_shorter_longer_and_foreign():
    vocabulary = " abcé"
    assert list(encode_prompt("b", vocabulary, 3)) == [2]
    assert list(encode_prompt("abc ab", vocabulary, 3)) == [0, 1, 2]
    assert list(encode_prompt("é", vocabulary, 3)) == [4]
    with pytest.raises(StageError, match=r"character 'A' at position 2 .*\(there is 'a'\)"):
        encode_prompt("abAb", vocabulary, 3)
    with pytest.raises(StageError, match=r"character '\\n' at position 0 is not in"):
        encode_prompt("\n", vocabulary, 3)
    with pytest.raises(StageError, match="at least one character"):
        encode_prompt("", vocabulary, 3)
