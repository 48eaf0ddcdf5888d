"""The training loop's checks."""

import json


def test_the_first_difference_is_named():
    from stages.training.loop import first_difference

    ours = {"a": {"b": 1, "c": 2}, "d": 3}
    assert first_difference(ours, json.loads(json.dumps(ours))) == ""
    assert first_difference(ours, {"a": {"b": 1, "c": 4}, "d": 5}) == "another a.c: 4 instead of 2"
    assert first_difference(ours, {"a": {"b": 1, "c": 2}}) == "another d: None instead of 3"
