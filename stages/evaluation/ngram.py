r"""The n-gram baseline: how well a plain n-gram model predicts the validation split.

Interpolated Witten-Bell smoothing (Witten & Bell 1991; Chen & Goodman 1999, section 2.5). N(h) is how
often anything follows a context h in the training part, T(h) is how many distinct characters do:

    P(c | h) = (N(hc) + T(h) P(c | h')) / (N(h) + T(h)),

where h' is h without its first character. Below the empty context, every character of the vocabulary has
the same probability. For a context that the training part does not have, P(c | h) = P(c | h').
"""

import csv
import math
from collections.abc import Iterator

import numpy as np

from stages.common.params import Vectorize
from stages.text.normalization import split_starts
from stages.text.vocabulary import encode

LONGEST_N = 12
Row = dict[str, float]


def baseline(text: str, settings: Vectorize) -> list[Row]:
    """Measure n-gram models on the characters that the LSTM's validation and test losses are measured on.

    Args:
        text: the normalized text.
        settings: the section `vectorize` of `params.yaml`.

    Returns:
        For n = 1, 2, ...: `n`, `val_loss` in nats and `val_bits_per_char`, with a test split also
        `test_loss` and `test_bits_per_char`. Empty without a validation split, and where the split is
        shorter than a window and its target.
    """
    indices, vocabulary = encode(text)
    start, test = split_starts(len(indices), settings)
    of_split = {
        name: np.arange(begin + settings.maxlen, end, settings.validation_step)
        for name, begin, end in (("val", start, test), ("test", test, len(indices)))
    }
    if not len(of_split["val"]):
        return []
    longest = min(LONGEST_N, settings.maxlen + 1)
    targets = np.concatenate(list(of_split.values()))
    rows: list[Row] = []
    for n, bits in enumerate(bits_of_targets(indices, len(vocabulary), start, targets, longest), 1):
        rows.append({"n": n})
        for name, part in zip(of_split, np.split(bits, [len(of_split["val"])]), strict=True):
            if len(part):
                mean = float(part.mean())
                rows[-1] |= {f"{name}_loss": mean * math.log(2), f"{name}_bits_per_char": mean}
    return rows


def bits_of_targets(
    indices: np.ndarray, vocab_size: int, start: int, targets: np.ndarray, longest: int
) -> Iterator[np.ndarray]:
    """Compute -log2 P of the characters at `targets`, for n = 1 to `longest`.

    Args:
        indices: (length,) the text.
        vocab_size: distinct characters.
        start: where the validation split begins; what lies before it is counted.
        targets: positions with at least `longest` - 1 characters before them.
        longest: the largest n.

    Yields:
        (len(targets),) bits of each target, for the next n.
    """
    probability = np.full(len(targets), 1 / vocab_size)
    # of each position: a number for the n - 1 characters before it, equal where they are equal
    context = np.zeros(len(indices), np.int32)
    for n in range(1, longest + 1):
        gram = number_grams(context, indices, vocab_size)
        trained = slice(n - 1, start)  # positions whose context lies in the training part too
        of_context = np.bincount(context[trained], minlength=context.max() + 1)
        of_gram = np.bincount(gram[trained], minlength=gram.max() + 1)
        context_of_gram = np.empty(len(of_gram), np.int32)
        context_of_gram[gram] = context
        kinds = np.bincount(context_of_gram[of_gram > 0], minlength=len(of_context))
        seen = of_context[context[targets]]
        distinct = kinds[context[targets]]
        probability = np.where(
            seen > 0,
            (of_gram[gram[targets]] + distinct * probability) / np.maximum(seen + distinct, 1),
            probability,
        )
        longer = len(of_gram)
        del of_context, of_gram, context_of_gram, kinds, seen, distinct  # the next n needs the memory
        yield -np.log2(probability)
        # one character more of context: the n before the next position are this position's gram
        context[0], context[1:] = longer, gram[:-1]


def number_grams(contexts: np.ndarray, characters: np.ndarray, vocab_size: int) -> np.ndarray:
    """Number the distinct pairs of a context and the character after it, in their order from 0.

    As `np.unique(keys, return_inverse=True)[1]` does, with fewer arrays of 64 bits at a time.

    Args:
        contexts: (length,) int32, the number of each position's context; length < 2**31.
        characters: (length,) indices below `vocab_size`.
        vocab_size: distinct characters.

    Returns:
        (length,) int32, the number of each pair.
    """
    keys = contexts.astype(np.int64)
    keys *= vocab_size
    keys += characters
    order = np.argsort(keys)
    keys = keys[order]
    numbers = np.zeros(len(keys), np.int32)
    np.cumsum(keys[1:] != keys[:-1], out=numbers[1:])
    del keys
    found = np.empty_like(numbers)
    found[order] = numbers
    return found


def table_of(rows: list[Row]) -> str:
    """Write the rows of `baseline` as a tab-separated table; only the header where there are none."""
    names = list(rows[0]) if rows else ["n", "val_loss", "val_bits_per_char"]
    lines = ["\t".join(names), *("\t".join(str(row[name]) for name in names) for row in rows)]
    return "\n".join(lines) + "\n"


def best_of(table: str) -> Row | None:
    """Read the row with the lowest validation loss out of a table of `table_of`; None if it is empty."""
    rows = [
        {name: int(value) if name == "n" else float(value) for name, value in row.items()}
        for row in csv.DictReader(table.splitlines(), delimiter="\t")
    ]
    return min(rows, key=lambda row: row["val_loss"], default=None)
