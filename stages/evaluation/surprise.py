"""How surprised a model is by a text: the file `metrics/score.json`, passages, and what the page shows."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.evaluation.ngram import bits_of_each
from stages.text.normalization import validation_start

SCORED = 2000  # characters that the page shows
WIDTH = 40  # characters of a passage
DIGITS = 4  # bits differ beyond, from machine to machine

Score = dict[str, Any]  # what `metrics/score.json` has


def scored_part(length: int, validation: float) -> tuple[int, int]:
    """Choose the characters that the stage scores: the first ones of the validation split.

    Args:
        length: characters of the text.
        validation: the share of the text, at its end, that is the validation split.

    Returns:
        The position of the first one and of the first one after them; they are those at the beginning of the
        text where there is no validation split.
    """
    start = validation_start(length, validation)
    start = start if start < length else 0
    return start, min(start + SCORED, length)


def ngram_bits(indices: np.ndarray, vocab_size: int, start: int, n: int) -> np.ndarray:
    """Compute what an n-gram model makes of the characters after those that it has counted.

    Args:
        indices: (length,) the text.
        vocab_size: distinct characters.
        start: position of the first character to score; those before it are counted.
        n: characters of an n-gram.

    Returns:
        (length - start,) bits.
    """
    *_, bits = bits_of_each(indices, vocab_size, start, np.arange(start, len(indices)), n)
    return bits


def score_line(text: str, start: int, bits: np.ndarray, ngram: tuple[int, np.ndarray] | None) -> str:
    """Write `metrics/score.json`.

    Args:
        text: the characters that were scored.
        start: the position of the first one.
        bits: of each under the model.
        ngram: n, and the bits of each under the n-gram model; None where there is none.

    Returns:
        One line of JSON: `text`, `start`, `bits` and `ngram`, which has `n` and `bits` or is null.
    """
    tree: Score = {"start": start, "text": text, "bits": rounded(bits), "ngram": None}
    if ngram is not None:
        tree["ngram"] = {"n": ngram[0], "bits": rounded(ngram[1])}
    return json.dumps(tree, ensure_ascii=False, allow_nan=False) + "\n"


def rounded(bits: np.ndarray) -> list[float]:
    """Round bits so that equal models give equal files."""
    return [round(float(each), DIGITS) for each in bits]


def passages(values: Sequence[float], count: int) -> list[int]:
    """Find the passages with the largest sums, of `WIDTH` characters each, that do not overlap.

    Args:
        values: one for each character.
        count: of passages, at most.

    Returns:
        The position where each begins, the largest sum first; of equal ones the first one.
    """
    width = min(WIDTH, len(values))
    if not width:
        return []
    sums = np.convolve(np.asarray(values, dtype=np.float64), np.ones(width), "valid").round(DIGITS)
    found: list[int] = []
    for at in np.argsort(-sums, kind="stable"):
        if len(found) == count:
            break
        if all(abs(at - other) >= width for other in found):
            found.append(int(at))
    return found


def left_out(text: str, positions: np.ndarray) -> dict[str, int]:
    """Count the characters of a text that are not among these positions, the most frequent first."""
    among = np.zeros(len(text), dtype=bool)
    among[positions] = True
    return dict(Counter(text[at] for at in np.flatnonzero(~among)).most_common())
