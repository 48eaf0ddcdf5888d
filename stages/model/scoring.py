"""Surprise: how many bits each character of a text costs under a model."""

import math

import keras
import numpy as np
import tensorflow as tf

from stages.model.architecture import recurrence

AT_ONCE = 500  # windows that are read side by side, or characters that are read in one call


def surprise(
    model: keras.Sequential, indices: np.ndarray, first: int = 0, carried: bool = False
) -> np.ndarray:
    """Compute -log2 p of each character of a text, given those before it.

    The first character of the text has none before it: it is predicted from the zero state.

    Args:
        model: a model of `build_model`.
        indices: (length,) the text, as indices into the vocabulary.
        first: position of the first character to score; those before it are only read.
        carried: whether the state goes on through the text, from a zero state at its beginning. Otherwise
            each character is predicted as the article does it, from a zero state and the window of `maxlen`
            characters before it, or from as many as there are.

    Returns:
        (length - first,) bits, float64.
    """
    characters = indices.astype(np.int32)
    if carried:
        return _with_carried_state(model, characters)[first:]
    return _by_windows(model, characters, first)


def _by_windows(model: keras.Sequential, characters: np.ndarray, first: int) -> np.ndarray:
    """Read the window before each character from a zero state, `AT_ONCE` windows side by side."""
    sizes, advance, logits = recurrence(model)
    maxlen, vocab_size = model.input_shape[1:]

    @tf.function(autograph=False, jit_compile=True)
    def program(windows, starts, targets):
        def step(t, _, states):
            output, states = advance(tf.one_hot(tf.gather(windows, t, axis=1), vocab_size), states)
            # a window of fewer characters stands at the right, and begins from a zero state there
            begun = tf.cast(t >= starts, tf.float32)[:, None]
            return t + 1, output * begun, [state * begun for state in states]

        states = [tf.zeros((AT_ONCE, size)) for size in sizes]
        _, output, _ = tf.while_loop(lambda t, *_: t < maxlen, step, (0, states[-1], states))
        return _bits(logits(output), targets)

    padded = np.concatenate([np.zeros(maxlen, np.int32), characters])
    bits = []
    for begin in range(first, len(characters), AT_ONCE):
        # the last piece is filled with its last window, since the program takes AT_ONCE of them
        targets = np.minimum(np.arange(begin, begin + AT_ONCE), len(characters) - 1)
        windows = padded[targets[:, None] + np.arange(maxlen)]
        starts = np.maximum(maxlen - targets, 0).astype(np.int32)
        bits.append(program(windows, starts, characters[targets]).numpy())
    return np.concatenate(bits)[: len(characters) - first]


def _with_carried_state(model: keras.Sequential, characters: np.ndarray) -> np.ndarray:
    """Read character after character; the state is never reset."""
    sizes, advance, logits = recurrence(model)
    vocab_size = model.output_shape[-1]

    @tf.function(autograph=False, jit_compile=True)
    def program(piece, output, states):
        def step(t, output, states, bits):
            character = tf.gather(piece, t)[None]
            bits = tf.tensor_scatter_nd_update(bits, [[t]], _bits(logits(output), character))
            return t + 1, *advance(tf.one_hot(character, vocab_size), states), bits

        start = (0, output, states, tf.zeros(AT_ONCE, tf.float64))
        return tf.while_loop(lambda t, *_: t < AT_ONCE, step, start)[1:]

    states = [tf.zeros((1, size)) for size in sizes]
    output, pieces = states[-1], []
    for begin in range(0, len(characters), AT_ONCE):
        piece = characters[begin : begin + AT_ONCE]
        output, states, bits = program(np.pad(piece, (0, AT_ONCE - len(piece))), output, states)
        pieces.append(bits.numpy())
    return np.concatenate(pieces)[: len(characters)]


def _bits(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Compute -log2 softmax(logits) (n, V) at the targets (n,), in float64."""
    chances = tf.nn.log_softmax(tf.cast(logits, tf.float64))
    return tf.gather(chances, targets, batch_dims=1) / -math.log(2)
