"""The n-gram baseline and the metrics of samples, as `dvc repro` runs them."""

import csv
import json
import re

import numpy as np
import pytest

from tests.unit.evaluation.test_ngram import naive_bits, naive_counts
from tests.unit.evaluation.test_sample_metrics import naive_metrics


def test_the_stage_measures_the_targets_of_val_loss(small):
    small.set_params(vectorize__validation=0.25, vectorize__maxlen=12)
    small.dvc("repro", "baseline")
    rows = small.read("metrics/baseline.tsv").decode().splitlines()
    found = {int(row["n"]): row for row in csv.DictReader(rows, delimiter="\t")}
    text = (small.root / "corpora/book.txt").read_text().lower().replace("\n", " ")
    start = len(text) - round(len(text) * 0.25)
    targets = range(start + 12, len(text), 3)
    counts = naive_counts(text[:start], 12)
    size = len(set(text))
    expected = {n: naive_bits(counts, size, text, targets, n) for n in range(1, 13)}
    assert list(found) == list(expected)
    for n, bits in expected.items():
        assert float(found[n]["val_bits_per_char"]) == pytest.approx(bits, abs=1e-9)
        assert float(found[n]["val_loss"]) == pytest.approx(bits * np.log(2), abs=1e-9)


def test_without_a_validation_split_there_is_no_baseline(finished):
    assert finished.read("metrics/baseline.tsv") == b"n\tval_loss\tval_bits_per_char\n"


def test_every_sample_is_measured(finished):
    samples = [json.loads(line) for line in finished.read("metrics/samples.jsonl").splitlines()]
    lines = finished.read("metrics/quality.tsv").decode().splitlines()
    header, *rows = [line.split("\t") for line in lines]
    assert [row[:2] for row in rows] == [[str(s["epoch"]), str(s["temperature"])] for s in samples]
    corpus = (finished.root / "corpora/book.txt").read_text().lower().replace("\n", " ")
    for row, sample in zip(rows, samples, strict=True):
        expected = naive_metrics(corpus, sample["text"])
        got = {name: float(value) for name, value in zip(header, row, strict=True)}
        assert {name: got[name] for name in expected} == pytest.approx(expected, abs=5e-5)


def test_plots_are_labelled_and_coloured_by_temperature(finished, tmp_path):
    finished.dvc("plots", "show", "-o", str(tmp_path / "plots"))
    page = (tmp_path / "plots/index.html").read_text()
    titles = re.findall(r'"title": {"text": "([^"]+)"', page)
    for title in ("Loss of each epoch", "Known words"):
        assert title in titles
    assert page.count('"color": {"field": "temperature", "type": "nominal"}') == 4
    assert '"title": "share of words that occur in the text"' in page
