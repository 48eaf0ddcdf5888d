"""The n-gram baseline against counters, and against what must hold for any probability."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from stages.baseline import bits_per_char
from stages.windows import encode
from tests.conftest import make_text


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
    text = make_text(2000) + "€ §"  # two characters that only the held-out part has
    indices, charset = encode(text)
    border, longest = 1700, 6
    targets = np.arange(border + 8, len(text), 3)
    bits = bits_per_char(indices, len(charset), border, targets, longest)
    counts = naive_counts(text[:border], longest)
    for n in range(1, longest + 1):
        expected = naive_bits(counts, len(charset), text, targets, n)
        assert bits[n - 1] == pytest.approx(expected, abs=1e-9), n


def test_probabilities_of_all_characters_add_up_to_one():
    """Each character in turn put where the target is: what is predicted for it must sum to 1."""
    indices, charset = encode(make_text(600))
    border, longest, target = 500, 5, 550
    total = 0.0
    for character in range(len(charset)):
        changed = indices.copy()
        changed[target] = character
        bits = bits_per_char(changed, len(charset), border, np.array([target]), longest)
        total += 2.0 ** -bits[-1]
    assert total == pytest.approx(1, abs=1e-9)


def test_the_stage_measures_the_targets_of_val_loss(small):
    small.set_params(vectorize__validation=0.25, vectorize__maxlen=12)
    small.dvc("repro", "baseline")
    figures = json.loads(small.read("metrics/baseline.json"))["ngram"]
    text = (small.root / "book.txt").read_text().lower().replace("\n", " ")
    border = len(text) - round(len(text) * 0.25)
    targets = range(border + 12, len(text), 3)
    counts = naive_counts(text[:border], 12)
    size = len(set(text))
    expected = {n: naive_bits(counts, size, text, targets, n) for n in range(1, 13)}
    assert figures["n"] == min(expected, key=lambda n: expected[n])
    assert figures["val_bits_per_char"] == pytest.approx(min(expected.values()), abs=1e-9)
    assert figures["val_loss"] == pytest.approx(min(expected.values()) * np.log(2), abs=1e-9)


def test_without_a_held_out_part_there_is_nothing_to_compare(finished):
    assert json.loads(finished.read("metrics/baseline.json")) == {}
