"""The fuzz run's own parts: its cases and its judgement."""

import json

import pytest
import yaml
from pydantic import ValidationError

from benchmarks.fuzz import mistakes, refusal, require_numbers, require_samples, strict
from benchmarks.fuzz_cases import FIELDS, Case, limits_of, make_case
from stages.common.params import Params

WRONG = Case("parameters:1", b"", b"", "train.epochs")
RIGHT = Case("parameters:0", b"", b"")
LINE = "error: params.yaml: train.epochs: got 0; takes a whole number from 1 to 100,000\n"


def test_each_parameter_gets_its_limits_and_wrong_values():
    limits = {f"{section}.{name}": field for section, name, field in FIELDS}
    assert limits_of(limits["train.epochs"]) == (1, 100_000)
    assert limits_of(limits["train.seed"]) == (0, 2**32 - 1)
    assert limits_of(limits["train.clip_norm"]) == (1e-30, 1e37)
    assert limits_of(limits["train.learning_rate"]) == (5e-324, 10)
    wrong = set()
    for number in range(2 * len(FIELDS)):
        case = make_case(1, "parameters", number)
        tree = yaml.safe_load(case.params)
        if number % 2:
            wrong.add(case.wrong)
            with pytest.raises(ValidationError) as caught:
                Params.model_validate(tree)
            assert {".".join(map(str, e["loc"][:2])) for e in caught.value.errors()} == {case.wrong}
        else:
            Params.model_validate(tree)
    assert wrong == set(limits)
    assert case == make_case(1, "parameters", number) != make_case(2, "parameters", number)


def test_texts_have_what_texts_can_have():
    texts = [make_case(0, "texts", number).text for number in range(60)]
    together = b"".join(texts)
    for each in ("\0", "\r\n", "\x85", "\u2028", "\ufeff"):
        assert each.encode() in together
    assert b"" in texts
    assert any(text.startswith(b"\x1f\x8b") for text in texts)
    with pytest.raises(UnicodeDecodeError):
        together.decode()


@pytest.mark.parametrize(
    ("case", "code", "said", "lost", "right"),
    [
        (WRONG, 1, LINE, [], True),
        (RIGHT, 1, "error: the text has 3 characters\n", [], True),
        (WRONG, 2, LINE, [], False),
        (WRONG, 1, LINE + LINE, [], False),
        (WRONG, 1, LINE.replace("got", "\u2028"), [], False),
        (WRONG, 1, "Traceback\n" + LINE, [], False),
        (WRONG, 1, "", [], False),
        (WRONG, -9, "", [], False),
        (WRONG, 1, LINE, ["data/corpus.txt"], False),
        (WRONG, 1, LINE.replace("epochs", "units"), [], False),
        (RIGHT, 1, LINE, [], False),
    ],
)
def test_only_one_line_that_names_the_mistake_will_do(case, code, said, lost, right):
    _, wrong = refusal(case, "train", code, said, lost)
    assert (wrong == "") == right


def test_files_that_do_not_parse_are_noticed(tmp_path):
    assert strict("[1.5]") == [1.5]
    require_numbers("epoch\tpart\tloss\n0\ttraining\t1.5\n")
    for table in ("epoch\tloss\n0\tnan\n", "epoch\tloss\n0\n", "epoch\tloss\n0\tinf\n"):
        with pytest.raises(ValueError, match=r"loss|zip|shorter"):
            require_numbers(table)
    sample = json.dumps({"prompt": "a", "text": "b\u2028"}, ensure_ascii=False)
    page = '<script type="application/json" id="{}">{}</script>'
    right = page.format("data", '{"samples": [[' + sample + "]]}") + page.format("charts", "[]")
    require_samples(right, sample + "\n")
    for wrong in (right.replace('"b', '"c'), right.replace("[]", "[NaN]")):
        with pytest.raises(ValueError, match=r"other samples|NaN"):
            require_samples(wrong, sample + "\n")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/corpus.json").write_text('{"corpus": NaN}', encoding="utf-8")
    found = mistakes(tmp_path, 2**62)
    assert "metrics/corpus.json: ValueError('NaN')" in found
    assert "data/windows.npz was not written" in found
    assert "metrics/corpus.json was not written" in found  # older than the run
