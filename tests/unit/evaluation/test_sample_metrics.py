"""The metrics of the samples against counting by Python's own `in`."""

import re
import tracemalloc

import numpy as np
import pytest

from stages.evaluation import sample_metrics
from stages.evaluation.sample_metrics import SharedNgrams, measure, whole_words
from tests.support import make_text


def naive_metrics(corpus, text):
    """Novelty and the longest copy, run by run."""
    metrics = {}
    for n in range(1, 13):
        runs = [text[i : i + n] for i in range(len(text) - n + 1)]
        metrics[f"novelty_{n}"] = sum(run not in corpus for run in runs) / len(runs) if runs else 0.0
    passages = (text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1))
    return metrics | {"longest_copy": max((len(p) for p in passages if p in corpus), default=0)}


@pytest.mark.parametrize("at_once", [1, sample_metrics.AT_ONCE])
def test_metrics_are_those_of_counting(monkeypatch, at_once):
    """Also where passages and n-grams lie across the pieces of the corpus."""
    monkeypatch.setattr(sample_metrics, "AT_ONCE", at_once)
    corpus = make_text(3000).lower().replace("\n", " ")
    rng = np.random.default_rng(0)
    texts = [
        corpus[100:160],  # copied
        corpus[2950:],  # copied, from the very end
        corpus[100:130] + corpus[500:530],  # two passages
        "".join(rng.choice(list("abdiko "), 60)),
        "€" * 60,  # nothing in common
        "b",
        corpus[7:9],
    ]
    pieces = re.findall(r".{1,80} |.+", corpus) if at_once == 1 else [corpus]
    assert "".join(pieces) == corpus
    assert len(pieces) > 30 or at_once > 1
    found = measure(pieces, texts, [""] * len(texts))
    for text, metrics in zip(texts, found, strict=True):
        expected = naive_metrics(corpus, text)
        assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=5e-5), text
    assert [found[0]["longest_copy"], found[4]["longest_copy"]] == [60, 0]
    assert found[0]["novelty_12"] == 0 < found[2]["novelty_12"] < found[3]["novelty_12"] <= 1


def test_texts_next_to_each_other_do_not_run_into_one():
    ngrams = SharedNgrams(["xa", "by", "ab"])
    ngrams.look_in("xaby")
    assert [list(each) for each in ngrams.counts()] == [[2, 2, 2], [1, 1, 1]]
    for texts in ["", "x"], []:
        ngrams = SharedNgrams(texts)
        ngrams.look_in("abc")
        assert ngrams.counts() == []


def test_memory_does_not_grow_with_the_corpus(monkeypatch):
    monkeypatch.setattr(sample_metrics, "AT_ONCE", 5_000)
    block = make_text(10_000)
    peaks = []
    for blocks in 1, 8:
        tracemalloc.start()
        measure((block for _ in range(blocks)), [block[:100]] * 4, [""] * 4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_known_words_leave_out_what_the_ends_cut():
    corpus = "the cat sat on the don't mat"
    assert whole_words("at sat, the ca", "the c") == ["sat", "the"]
    assert whole_words("at sat, the ca.", "the c ") == ["at", "sat", "the", "ca"]
    (metrics,) = measure([corpus], ["at sat do don't \u00fcber x1 ma"], ["c"])
    # sat, don't of sat, do, don't, über, x
    assert metrics["known_words"] == 0.4
    assert measure([corpus], ["12", ""], ["", ""])[0]["known_words"] == 0


def test_distinct_is_the_share_of_different_runs():
    (metrics,) = measure(["x"], ["ababab"], [""])
    assert [metrics[f"distinct_{n}"] for n in (1, 2, 3, 8)] == [0.3333, 0.4, 0.5, 1.0]
