"""The n-gram's bits of each character, passages, and characters that are left out."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stages.evaluation.surprise import Excerpt, left_out, ngram_bits, passages, score_line, scored_part
from stages.text.vocabulary import encode, encode_known
from tests.support import make_text
from tests.unit.evaluation.test_ngram import naive_counts, naive_probability


def test_the_ngram_predicts_each_character_from_those_before_it():
    text = make_text(1200)
    indices, vocabulary = encode(text)
    start, n = 1000, 4
    counts = naive_counts(text[:start], n)
    expected = [
        -np.log2(naive_probability(counts, len(vocabulary), text[at - n + 1 : at], text[at]))
        for at in range(start, len(text))
    ]
    np.testing.assert_allclose(ngram_bits(indices, len(vocabulary), start, n), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("length", "validation", "test", "part"),
    [
        (600_893, 0.1, 0.0, (540_804, 542_804)),  # the first characters of the split
        (600_893, 0.0, 0.0, (0, 2000)),  # or of the text without one
        (600_893, 0.0, 0.1, (0, 2000)),
        (3000, 0.5, 0.0, (1500, 3000)),
        (3000, 0.1, 0.1, (2400, 2700)),  # none of the test split
        (100, 0.0, 0.0, (0, 100)),
    ],
)
def test_the_first_characters_of_the_validation_split_are_scored(params, length, validation, test, part):
    settings = params(vectorize__validation=validation, vectorize__test=test).vectorize
    assert scored_part(length, settings) == part


def naive_passages(values, count, width=40):
    """Again and again the largest sum of those that overlap no earlier one."""
    found: list[int] = []
    for _ in range(count):
        free = [
            at for at in range(len(values) - width + 1) if all(abs(at - other) >= width for other in found)
        ]
        if free:
            found.append(max(free, key=lambda at: (round(sum(values[at : at + width]), 4), -at)))
    return found


def test_passages_are_the_most_surprising_ones_and_do_not_overlap():
    values = np.random.default_rng(0).exponential(2, 400).round(4).tolist()
    found = passages(values, 20)
    assert found == naive_passages(values, 20)
    assert 4 < len(found) < 20  # until none fits any more
    assert passages([1.0] * 100, 2) == [0, 40]
    assert passages([1.0, 2.0], 3) == [0]  # all of a text that is shorter than a passage
    assert passages([], 3) == []


def test_characters_outside_the_vocabulary_are_counted():
    text = "ab€cé€"
    indices, positions = encode_known(text, "abc")
    assert (indices.tolist(), positions.tolist()) == ([0, 1, 2], [0, 1, 3])
    assert left_out(text, positions) == {"€": 2, "é": 1}
    assert left_out("abc", np.arange(3)) == {}


def test_the_file_has_four_digits_of_each_character():
    excerpt = Excerpt("a\u2028\n", 7, np.arange(5), 2, (3, np.array([0.1, 0.2, 0.33333])))
    line = score_line(excerpt, np.array([1.23456, 0, 2]))
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "start": 7,
        "text": "a\u2028\n",
        "bits": [1.2346, 0.0, 2.0],
        "ngram": {"n": 3, "bits": [0.1, 0.2, 0.3333]},
    }
    assert json.loads(score_line(replace(excerpt, ngram=None), np.ones(3)))["ngram"] is None
