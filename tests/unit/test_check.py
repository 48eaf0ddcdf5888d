"""The check of parameters that only some devices take, before any stage removes its outputs."""

import ctypes

import pytest

from stages import check
from stages.common.errors import StageError


@pytest.fixture
def driver(monkeypatch):
    """A function that says whether there is a driver."""

    def make(there: bool) -> None:
        def load(name: str) -> None:
            assert name == "libcuda.so.1"
            if not there:
                raise OSError("libcuda.so.1: no such file")

        monkeypatch.setattr(ctypes, "CDLL", load)

    return make


@pytest.mark.parametrize(
    ("there", "changes", "says"),
    [
        (
            False,
            {"train__device": "gpu"},
            r"^train\.device: got 'gpu', but there is no NVIDIA driver \(lib",
        ),
        (
            False,
            {"train__precision": "tf32"},
            r"^train\.precision: got 'tf32'; takes float32 or mixed_bf",
        ),
        (True, {"train__precision": "tf32", "train__device": "cpu"}, "a CPU, which has no TF32"),
        *(
            (False, {"train__precision": "mixed_bfloat16"} | change, "takes float32 here: on a CPU only")
            for change in (
                {"model__cell": "gru"},
                {"model__layers": 2},
                {"model__dropout": 0.1},
                {"model__embedding": 3},
                {"train__targets": "all"},
            )
        ),
    ],
)
def test_what_no_cpu_can_do_is_refused(params, driver, there, changes, says):
    driver(there)
    with pytest.raises(StageError, match=says):
        check.require_precision(params(**changes))


@pytest.mark.parametrize(
    ("there", "changes"),
    [
        (False, {}),
        (False, {"train__precision": "mixed_bfloat16"}),
        (True, {"train__precision": "tf32"}),
        (True, {"train__precision": "mixed_bfloat16", "model__cell": "gru", "train__device": "gpu"}),
        (True, {"train__device": "gpu"}),
    ],
)
def test_what_may_be_possible_is_left_to_the_train_stage(params, driver, there, changes):
    driver(there)
    check.require_precision(params(**changes))
