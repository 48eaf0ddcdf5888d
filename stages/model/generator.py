"""The batch sampler: the article's text generation, for all temperatures at once, as one XLA program.

For each new character the article feeds the last `maxlen` characters to the model, from a zero state:
`maxlen` steps of the recurrence, one after the other. Two neighbouring windows share all characters but
one, so these steps can run side by side. This generator keeps `maxlen` windows open that start one
character apart. Each new character is fed to all of them in one step. The oldest window has then read
`maxlen` characters and gives the logits of the next character; a new window takes its row. That is the
same arithmetic on the same windows with `maxlen` times fewer steps in a row.
"""

import struct
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from stages.common.randomness import keyed_generator
from stages.model.architecture import recurrence


def uniform_draws(seed: int, epoch: int, temperatures: Sequence[float], length: int) -> np.ndarray:
    """Draw uniform numbers, keyed by seed, epoch and temperature.

    One more temperature does not change the text of the others.

    Args:
        seed: the random seed.
        epoch: the epoch whose weights generate.
        temperatures: the sampling temperatures.
        length: characters to generate.

    Returns:
        (length, temperatures) numbers in [0, 1), float64.
    """
    columns = [
        keyed_generator(seed, "sample", epoch, *struct.unpack("<2I", struct.pack("<d", t))).random(length)
        for t in temperatures
    ]
    return np.stack(columns, axis=1)


def draw(logits: tf.Tensor, temperatures: np.ndarray, uniform: tf.Tensor) -> tf.Tensor:
    """Draw one index per row from softmax(logits / T) by its cumulative distribution.

    This is the article's `sample`: log p differs from the logits by a constant, which softmax ignores. It
    computes in float64 and relative to the largest logit, so no temperature above 0 overflows.

    Args:
        logits: (k, V) of any float type.
        temperatures: (k,), at least 0; 0 takes the arg max.
        uniform: (k,) in [0, 1).

    Returns:
        (k,) int32 indices.
    """
    logits = tf.cast(logits, tf.float64)
    below_best = logits - tf.reduce_max(logits, axis=1, keepdims=True)
    # compiled code may take a denormal divisor for 0; at 1e-300 only equal logits share the draw anyway
    divisor = np.where(temperatures > 0, np.maximum(temperatures, 1e-300), 1.0)[:, None]
    weights = tf.exp(below_best / divisor)
    cumulative = tf.cumsum(weights, axis=1)
    passed = cumulative <= uniform[:, None] * cumulative[:, -1:]
    drawn = tf.reduce_sum(tf.cast(passed, tf.int32), axis=1)
    best = tf.argmax(logits, axis=1, output_type=tf.int32)
    return tf.where(temperatures > 0, tf.minimum(drawn, logits.shape[1] - 1), best)


class Generator:
    """Generates text from a model's present weights. It compiles once, for any number of epochs."""

    def __init__(
        self, model: keras.Sequential, temperatures: Sequence[float], length: int, carried: bool = False
    ) -> None:
        """Prepare the program.

        Args:
            model: a model of `build_model`.
            temperatures: the sampling temperatures, at least 0.
            length: characters to generate.
            carried: whether the state goes on from character to character, in one window without end.
        """
        self.maxlen, self.vocab_size = model.input_shape[1:]
        self._windows, self._carried = (1 if carried else self.maxlen), carried
        self.temperatures = np.array(temperatures, dtype=np.float64)
        self.length = length
        self._sizes, self._advance, self._logits = recurrence(model)
        self._program = tf.function(self._generate, autograph=False, jit_compile=True)

    def __call__(self, prompt: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Continue a prompt at every temperature.

        As long as fewer than `maxlen` characters are known, the window is all of them.

        Args:
            prompt: (P,) int32 indices, 1 <= P <= maxlen; any number where the state is carried.
            uniform: (length, temperatures) in [0, 1), as `uniform_draws` gives.

        Returns:
            (temperatures, length) int32 indices, without the prompt.
        """
        return self._program(tf.constant(prompt, tf.int32), tf.constant(uniform, tf.float64)).numpy()

    def _generate(self, prompt: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Feed the prompt, then each drawn character (the compiled program)."""
        known = prompt.shape[0]
        rows, windows = len(self.temperatures), self._windows
        slots = tf.range(windows)

        def step(at, character, states, drawn):
            # the window that starts at this character takes the slot of the one that is full
            keep = tf.cast(slots != (-1 if self._carried else at % windows), tf.float32)[:, None, None]
            x = tf.tile(tf.one_hot(character, self.vocab_size), [windows, 1])
            flat = [tf.reshape(state * keep, (-1, state.shape[-1])) for state in states]
            output, flat = self._advance(x, flat)
            states = [tf.reshape(state, (windows, rows, state.shape[-1])) for state in flat]
            output = tf.reshape(output, (windows, rows, output.shape[-1]))
            oldest = tf.where(at + 1 < windows, 0, (at + 1) % windows)
            logits = self._logits(tf.gather(output, oldest))
            nth = at - (known - 1)  # of the characters to generate; below 0 the prompt is still being read
            new = draw(logits, self.temperatures, tf.gather(uniform, tf.maximum(nth, 0)))
            forced = tf.fill([rows], tf.gather(prompt, tf.minimum(at + 1, known - 1)))
            character = tf.where(nth >= 0, new, forced)
            drawn = tf.tensor_scatter_nd_update(drawn, [[tf.maximum(nth, 0)]], [character])
            return at + 1, character, states, drawn

        state = (
            tf.constant(0),
            tf.fill([rows], prompt[0]),
            [tf.zeros((windows, rows, size)) for size in self._sizes],
            tf.zeros((self.length, rows), tf.int32),
        )
        last = known - 1 + self.length
        *_, drawn = tf.while_loop(lambda at, *_: at < last, step, state)
        return tf.transpose(drawn)
