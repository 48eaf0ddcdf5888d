"""How surprised a model is by a text: the file `metrics/score.json`, passages, and what the page shows."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.common.errors import StageError
from stages.common.params import Vectorize
from stages.common.paths import CORPUS_FILE, MODELS_DIR
from stages.evaluation.ngram import best_of, bits_of_targets
from stages.text.normalization import split_starts
from stages.text.vocabulary import encode_known
from stages.text.vocabulary_file import ModelText

SCORED = 2000  # characters that the page shows
WIDTH = 40  # characters of a passage
DIGITS = 4  # bits differ beyond, from machine to machine
SHOWN = 5  # passages in a table of the page
BOUNDS = [1, 2, 4, 6]  # of the marks, in bits
LEVELS = ["below 1 bit", "1 to 2 bits", "2 to 4 bits", "4 to 6 bits", "6 bits and more"]
DIFFERENCES = [-2, -0.5, 0.5, 2]  # of the model's bits from the n-gram's

Score = dict[str, Any]  # what `metrics/score.json` has


def scored_part(length: int, settings: Vectorize) -> tuple[int, int]:
    """Choose the characters that the stage `sample` scores: the first ones of the validation split.

    Args:
        length: characters of the text.
        settings: the section `vectorize` of `params.yaml`.

    Returns:
        The position of the first one and of the first one after them; they are those at the beginning of the
        text where there is no validation split.
    """
    start, test = split_starts(length, settings)
    if start == test:
        return 0, min(SCORED, length)
    return start, min(start + SCORED, test)


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
    *_, bits = bits_of_targets(indices, vocab_size, start, np.arange(start, len(indices)), n)
    return bits


@dataclass(frozen=True)
class Excerpt:
    """The part of the corpus that is scored.

    Attributes:
        text: its characters.
        start: the position of the first one in the corpus.
        indices: the characters that the first window needs, then the text's, as indices into the vocabulary.
        first: how many come before the text's.
        ngram: n, and the bits of each character under the best n-gram model; None where there is none.
    """

    text: str
    start: int
    indices: np.ndarray
    first: int
    ngram: tuple[int, np.ndarray] | None


def excerpt_of(corpus: str, text: ModelText, settings: Vectorize, ngrams: str) -> Excerpt:
    """Choose what is scored, and score it with the best n-gram model.

    Args:
        corpus: the normalized text.
        text: how the model reads text.
        settings: the section `vectorize` of `params.yaml`.
        ngrams: the table `metrics/baseline.tsv`.

    Returns:
        The excerpt.

    Raises:
        StageError: the model is of another text.
    """
    start, end = scored_part(len(corpus), settings)
    best = best_of(ngrams)
    first = min(start, text.maxlen)
    begin = start - first if best is None else 0  # the n-gram counts all of them
    indices, positions = encode_known(corpus[begin:end], text.vocabulary)
    if len(positions) < end - begin:
        raise StageError(f"{MODELS_DIR} has a model of another text than {CORPUS_FILE}; run `dvc repro`")
    ngram = None
    if best is not None:
        n = int(best["n"])
        ngram = n, ngram_bits(indices, len(text.vocabulary), start, n)
    # a view would keep the indices of the whole text in memory
    own = indices[start - first - begin :].copy()
    return Excerpt(corpus[start:end], start, own, first, ngram)


def score_line(excerpt: Excerpt, bits: np.ndarray) -> str:
    """Write `metrics/score.json`.

    Args:
        excerpt: what was scored.
        bits: of each character under the model.

    Returns:
        One line of JSON: `text`, `start`, `bits` and `ngram`, which has `n` and `bits` or is null.
    """
    tree: Score = {"start": excerpt.start, "text": excerpt.text, "bits": rounded(bits), "ngram": None}
    if excerpt.ngram is not None:
        tree["ngram"] = {"n": excerpt.ngram[0], "bits": rounded(excerpt.ngram[1])}
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


def page_section(score: Score) -> dict[str, Any]:
    """Prepare what the page shows of a text's surprise.

    Args:
        score: the tree of `metrics/score.json`.

    Returns:
        The variables of `surprise.html.j2`.
    """
    text, model, other = score["text"], np.array(score["bits"]), score["ngram"]
    data = {"model": score["bits"], "ngram": None, "n": None, "bounds": BOUNDS, "differences": DIFFERENCES}
    section: dict[str, Any] = {
        "count": len(text),
        "mean": model.mean(),
        "perplexity": 2 ** model.mean(),
        "levels": LEVELS,
        "characters": list(zip(text, np.searchsorted(BOUNDS, model, side="right").tolist(), strict=True)),
        "ngram": None,
        "data": data,
    }
    tables = {"Most surprising to the model": model}
    if other is not None:
        n, bits = other["n"], np.array(other["bits"])
        more = bits - model
        section["ngram"] = {
            "n": n,
            "mean": bits.mean(),
            "perplexity": 2 ** bits.mean(),
            "better": 100 * (more > 0).mean(),
            "worse": 100 * (more < 0).mean(),
        }
        section["differences"] = [
            "model better by 2 bits or more",
            "model better by 0.5 to 2 bits",
            "less than 0.5 bits apart",
            f"{n}-gram better by 0.5 to 2 bits",
            f"{n}-gram better by 2 bits or more",
        ]
        data |= {"ngram": other["bits"], "n": n}
        tables = {"The model is better": more, f"The {n}-gram is better": -more, **tables}
    width = min(WIDTH, len(text))

    def row(at: int) -> dict[str, Any]:
        part = slice(at, at + width)
        ngram = None if other is None else np.mean(other["bits"][part])
        return {"text": text[part], "model": model[part].mean(), "ngram": ngram}

    section["tables"] = [
        {
            "title": f"{title}, bits per character",
            "rows": [row(at) for at in passages(values.tolist(), SHOWN) if values[at : at + width].sum() > 0],
        }
        for title, values in tables.items()
    ]
    return section
