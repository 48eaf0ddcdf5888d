"""The training loop's checks."""

import json
from unittest.mock import Mock

import pytest


def test_the_first_difference_is_named():
    from stages.training.loop import first_difference

    ours = {"a": {"b": 1, "c": 2}, "d": 3}
    assert first_difference(ours, json.loads(json.dumps(ours))) == ""
    assert first_difference(ours, {"a": {"b": 1, "c": 4}, "d": 5}) == "another a.c: 4 instead of 2"
    assert first_difference(ours, {"a": {"b": 1, "c": 2}}) == "another d: None instead of 3"


@pytest.mark.parametrize(
    ("changes", "loop", "reason"),
    [
        ({}, {"uses_cudnn": True}, ""),
        ({}, {"uses_cudnn": False}, "Keras sees no GPU"),
        ({"train__use_cudnn": False}, {"uses_cudnn": False}, "train.use_cudnn is false"),
        ({"model__cell": "rnn"}, {"uses_cudnn": False}, "Keras has no cuDNN layer for model.cell: rnn"),
        ({}, None, ""),  # on a CPU
    ],
)
def test_a_gpu_without_cudnn_has_its_reason(params, changes, loop, reason):
    from stages.training.device_loop import DeviceLoop
    from stages.training.host_loop import HostLoop
    from stages.training.loop import why_no_cudnn

    trainer = Mock(loop=Mock(DeviceLoop, **loop) if loop else Mock(HostLoop))
    assert why_no_cudnn(trainer, params(**changes)) == reason
