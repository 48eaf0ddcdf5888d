"""The n-gram baseline against counters, and against what must hold for any probability."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from stages.evaluation.ngram import baseline, best_of, bits_of_targets, table_of
from stages.text.vocabulary import encode
from tests.support import make_text


def naive_probability(counts, size, context, character):
    """Witten-Bell by its recursive definition."""
    if context is None:
        return 1 / size
    shorter = naive_probability(counts, size, context[1:] if context else None, character)
    followers = counts[context]
    if not followers:
        return shorter
    return (followers[character] + len(followers) * shorter) / (followers.total() + len(followers))


def naive_bits(counts, size, text, targets, n):
    """Mean bits of the targets, each from the n - 1 characters before it."""
    probabilities = [naive_probability(counts, size, text[t - n + 1 : t], text[t]) for t in targets]
    return -np.log2(probabilities).mean()


def naive_counts(text, longest):
    """How often each context of up to `longest` - 1 characters has each follower."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for n in range(longest):
        for at in range(n, len(text)):
            counts[text[at - n : at]][text[at]] += 1
    return counts


def test_bits_are_those_of_the_recursive_definition():
    text = make_text(2000) + "€ §"  # two characters that only the validation split has
    indices, vocabulary = encode(text)
    start, longest = 1700, 6
    targets = np.arange(start + 8, len(text), 3)
    bits = [each.mean() for each in bits_of_targets(indices, len(vocabulary), start, targets, longest)]
    counts = naive_counts(text[:start], longest)
    for n in range(1, longest + 1):
        expected = naive_bits(counts, len(vocabulary), text, targets, n)
        assert bits[n - 1] == pytest.approx(expected, abs=1e-9), n


def test_probabilities_of_all_characters_add_up_to_one():
    """Each character in turn put where the target is: what is predicted for it must sum to 1."""
    indices, vocabulary = encode(make_text(600))
    start, longest, target = 500, 5, 550
    total = 0.0
    for character in range(len(vocabulary)):
        changed = indices.copy()
        changed[target] = character
        *_, bits = bits_of_targets(changed, len(vocabulary), start, np.array([target]), longest)
        total += 2.0 ** -bits.item()
    assert total == pytest.approx(1, abs=1e-9)


def test_n_is_chosen_on_the_validation_split_and_counted_in_the_training_part_alone(params):
    """The test split is another text, on which another n is best."""
    text = make_text(3200) + make_text(800)[::-1]
    settings = params(vectorize__validation=0.2, vectorize__test=0.2, vectorize__maxlen=8).vectorize
    rows = baseline(text, settings)
    counts = naive_counts(text[:2400], 9)
    for split, targets in (("val", range(2408, 3200, 3)), ("test", range(3208, 4000, 3))):
        for n, row in enumerate(rows, 1):
            expected = naive_bits(counts, len(set(text)), text, targets, n)
            assert row[f"{split}_bits_per_char"] == pytest.approx(expected, abs=1e-9), (split, n)
            assert row[f"{split}_loss"] == pytest.approx(expected * np.log(2), abs=1e-9)
    best = best_of(table_of(rows))
    assert best == min(rows, key=lambda row: row["val_loss"])
    assert best != min(rows, key=lambda row: row["test_loss"])


def test_a_test_split_alone_gives_no_baseline(params):
    rows = baseline(make_text(1000), params(vectorize__test=0.2).vectorize)
    assert (rows, table_of(rows)) == ([], "n\tval_loss\tval_bits_per_char\n")
