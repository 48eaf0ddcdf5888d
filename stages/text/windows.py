"""Windows: `maxlen` consecutive characters of the text, each with the character that follows."""

from dataclasses import dataclass

import numpy as np

from stages.common.errors import StageError
from stages.common.params import Vectorize
from stages.text.normalization import split_starts
from stages.text.vocabulary import encode


@dataclass(frozen=True)
class Windows:
    """Windows and targets as indices into the vocabulary.

    Attributes:
        x: (n, maxlen) windows in an unsigned type.
        y: (n,) targets, the character after each window.
        x_val: (m, maxlen) windows of the validation split, m = 0 without one.
        y_val: (m,) their targets.
        x_test: (k, maxlen) windows of the test split, k = 0 without one.
        y_test: (k,) their targets.
        vocabulary: the distinct characters of the text, sorted.
    """

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    vocabulary: str

    @property
    def maxlen(self) -> int:
        """Characters in a window."""
        return int(self.x.shape[1])


def make_windows(text: str, settings: Vectorize) -> Windows:
    """Cut a text into windows; none crosses into the validation split or the test split at the text's end.

    Args:
        text: the normalized text.
        settings: the section `vectorize` of `params.yaml`.

    Returns:
        The windows.

    Raises:
        StageError: the text or one of its splits is shorter than one window and its target.
    """
    indices, vocabulary = encode(text)
    validation, test = split_starts(len(indices), settings)
    arrays: list[np.ndarray] = []
    for name, part, step, wanted in (
        ("the text", indices[:validation], settings.step, True),
        ("the validation split", indices[validation:test], settings.validation_step, settings.validation),
        ("the test split", indices[test:], settings.validation_step, settings.test),
    ):
        cuts = cut(part, settings.maxlen, step)
        if wanted and not len(cuts[0]):
            raise StageError(
                f"{name} has {len(part):,} characters; a window and its target take "
                f"vectorize.maxlen + 1 = {settings.maxlen + 1:,} at least"
            )
        arrays += cuts
    x, y, x_val, y_val, x_test, y_test = arrays
    return Windows(x, y, x_val, y_val, x_test, y_test, vocabulary)


def cut(indices: np.ndarray, maxlen: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut windows of `maxlen` every `step` characters, each with the character that follows.

    The article's `for i in range(0, len(text) - maxlen, step)`.

    Args:
        indices: (length,) the text.
        maxlen: characters in a window.
        step: characters from the start of one window to the start of the next.

    Returns:
        x (n, maxlen) and y (n,), views of `indices`, with n = ceil((length - maxlen) / step) or 0.
    """
    if len(indices) <= maxlen:
        return np.empty((0, maxlen), indices.dtype), np.empty(0, indices.dtype)
    x = np.lib.stride_tricks.sliding_window_view(indices[:-1], maxlen)[::step]
    return x, indices[maxlen::step]


def one_hot(indices: np.ndarray, size: int) -> np.ndarray:
    """Turn (...) indices into (..., size) bool, one true in each row: the article's `x` and `y`."""
    hot = np.zeros((*indices.shape, size), dtype=bool)
    np.put_along_axis(hot, indices[..., None].astype(np.intp), True, axis=-1)
    return hot
