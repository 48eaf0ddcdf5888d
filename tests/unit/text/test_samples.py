"""The file of samples."""

import json

import pytest

from stages.common.errors import StageError
from stages.text.samples import as_the_article_prints, lines_of, read_samples


def test_every_line_separator_of_unicode_can_be_in_a_sample(tmp_path, monkeypatch):
    """JSON leaves U+0085, U+2028 and U+2029 as they are; only a newline ends a line of the file."""
    monkeypatch.chdir(tmp_path)
    separators = "a\nb\rc\x0bd\x0ce\x1cf\x1dg\x1eh\x85i\u2028j\u2029k"
    samples = [
        {"epoch": e, "temperature": 0.5, "prompt": separators, "text": separators[::-1]} for e in (0, 1)
    ]
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/samples.jsonl").write_text(lines_of(samples), encoding="utf-8", newline="")
    assert read_samples() == samples
    lines = (tmp_path / "metrics/samples.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines if line] == samples


def test_missing_samples_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=r"samples\.jsonl is missing; `dvc repro sample` creates it"):
        read_samples()


def test_the_layout_of_the_article():
    samples = [{"epoch": 3, "temperature": t, "prompt": "ab", "text": "cd"} for t in (0.2, 1.0)]
    assert as_the_article_prints(samples, 1.23456) == (
        "epoch: 3\nloss: 1.2346\n"
        "temperature: 0.2\nGenerating with seed: ab\nGENERATED:cd\n"
        "temperature: 1.0\nGenerating with seed: ab\nGENERATED:cd\n"
    )
