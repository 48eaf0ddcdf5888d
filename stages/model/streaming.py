"""The streaming sampler: the article's text generation, one character at a time as it comes."""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from stages.common.errors import StageError
from stages.common.randomness import keyed_generator
from stages.model.architecture import recurrence

NextLogits = Callable[[Sequence[int]], np.ndarray]


def compile_next_logits(model: keras.Sequential) -> NextLogits:
    """Compile a model to one XLA program that predicts the next character.

    Args:
        model: a model of `build_model`.

    Returns:
        A function from 1 to `maxlen` indices, read from a zero state, to (V,) logits.
    """
    sizes, advance, logits = recurrence(model)
    maxlen, vocab_size = model.input_shape[1:]

    @tf.function(
        jit_compile=True,
        autograph=False,
        input_signature=[tf.TensorSpec((maxlen,), tf.int32), tf.TensorSpec((), tf.int32)],
    )
    def program(window, start):
        def step(t, _, states):
            return t + 1, *advance(tf.one_hot(tf.gather(window, t), vocab_size)[None], states)

        states = [tf.zeros((1, units)) for units in sizes]
        _, output, _ = tf.while_loop(lambda t, *_: t < maxlen, step, (start, states[-1], states))
        return logits(output)[0]

    def next_logits(indices: Sequence[int]) -> np.ndarray:
        start = maxlen - len(indices)
        return program(np.array([0] * start + list(indices), np.int32), np.int32(start)).numpy()

    return next_logits


def compile_reader(model: keras.Sequential) -> Callable[[], NextLogits]:
    """Compile a model to one XLA program that reads a text on with a carried state.

    Args:
        model: a model of `build_model`.

    Returns:
        A function that begins a text. It returns a function from all indices of the text so far to (V,)
        logits, which reads those that it has not read yet.
    """
    sizes, advance, logits = recurrence(model)
    vocab_size = model.input_shape[-1]

    @tf.function(jit_compile=True, autograph=False)
    def program(index, states):
        output, states = advance(tf.one_hot(index, vocab_size)[None], states)
        return logits(output)[0], states

    def begin() -> NextLogits:
        state: list[tf.Tensor] = [tf.zeros((1, size)) for size in sizes]
        read = 0

        def next_logits(indices: Sequence[int]) -> np.ndarray:
            nonlocal state, read
            # from the end, since a deque is slow to enter elsewhere
            new = [*itertools.islice(reversed(indices), len(indices) - read)]
            for index in reversed(new):
                found, state = program(tf.constant(index), state)
            read = len(indices)
            return found.numpy()

        return next_logits

    return begin


class StreamingSampler:
    """Generates text from a trained model, one character at a time."""

    def __init__(
        self,
        model: keras.Sequential,
        vocabulary: str,
        temperature: float,
        top_k: int | None = None,
        seed: int = 0,
        carried: bool = False,
    ) -> None:
        """Compile the model.

        Args:
            model: a model of `build_model`.
            vocabulary: its vocabulary.
            temperature: the sampling temperature, at least 0.
            top_k: draw among this many of the likeliest characters; None for all.
            seed: the random seed.
            carried: whether the state goes on from character to character.
        """
        self._begin: Callable[[], NextLogits]
        if carried:
            self._begin = compile_reader(model)
        else:
            of_window = compile_next_logits(model)
            self._begin = lambda: of_window
        self._vocabulary, self._seed = vocabulary, seed
        self._temperature, self._top_k = temperature, top_k

    def continuation(self, window: deque[int], text: int) -> Iterator[str]:
        """Generate character after character, without end, each from the `maxlen` before it.

        Args:
            window: the last `maxlen` indices, or all where the state is carried; each new one is added.
            text: number of the text, which the random draws depend on.

        Yields:
            The next character.
        """
        draws = keyed_generator(self._seed, "generate by hand", text)
        next_logits = self._begin()
        while True:
            index = draw(next_logits(window), self._temperature, self._top_k, draws.random())
            window.append(index)
            yield self._vocabulary[index]

    def print(self, window: deque[int], length: int, text: int) -> None:
        """Print `length` characters as they come, and a newline; arguments as for `continuation`."""
        for character in itertools.islice(self.continuation(window, text), length):
            print(character, end="", flush=True)
        print(flush=True)


def converse(
    sampler: StreamingSampler,
    length: int,
    window: deque[int],
    encoded: Callable[[str], deque[int]],
    begin: bool,
) -> None:
    """Generate and ask for a prompt in turn, until the input ends. A wrong prompt is named.

    Args:
        sampler: generates.
        length: characters of each text.
        window: the indices to start from.
        encoded: turns a prompt into indices; an empty prompt continues the last text.
        begin: whether to generate before the first question.
    """
    text = 0
    while True:
        if begin:
            sampler.print(window, length, text)
            text += 1
        begin = True
        try:
            if line := input("> "):
                window = encoded(line)
        except EOFError:
            print()
            return
        except StageError as error:
            print(f"error: {error}", file=sys.stderr)
            begin = False


def draw(logits: np.ndarray, temperature: float, top_k: int | None, uniform: float) -> int:
    """Draw one index from softmax(logits / temperature) among the `top_k` largest.

    Args:
        logits: (V,).
        temperature: at least 0; 0 takes the arg max.
        top_k: how many; None for all. Of equal logits the first ones are among them.
        uniform: the position in the cumulative distribution, in [0, 1).

    Returns:
        The index.
    """
    below_best = (logits - logits.max()).astype(np.float64)
    if temperature == 0:
        return int(logits.argmax())
    weights = np.exp(below_best / max(temperature, 1e-300))
    if top_k is not None:
        weights[np.argsort(-logits, kind="stable")[top_k:]] = 0
    cumulative = np.cumsum(weights)
    drawn = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    return int(min(drawn, len(logits) - 1))
