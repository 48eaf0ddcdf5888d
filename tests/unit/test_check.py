"""The check of parameters that only some devices take, before any stage removes its outputs."""

import ctypes

import pytest

from stages import check
from stages.common.errors import StageError

CARRIED = {"train__state": "carried", "train__targets": "all", "vectorize__step": 40}
TIED = {"train__tied_embedding": True, "train__targets": "all", "model__embedding": 128}


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
        (
            False,
            {"train__variational_dropout": True, "train__targets": "all"},
            "takes false unless model.dropout is above 0",
        ),
        (False, {"train__workers": 9}, r"^train\.workers: got 9 workers; takes at most 8 \(train\.micro"),
        (False, {"train__weight_dropout": 0.5}, "takes 0 unless train.targets is all"),
        (False, {"train__variational_dropout": True}, "takes false unless train.targets is all"),
        (False, CARRIED | {"train__targets": "last"}, "train.state: got 'carried'; takes reset unless"),
        (False, CARRIED | {"train__steps_per_epoch": 1}, "train.steps_per_epoch: got 1; takes 2 or more"),
        (False, CARRIED | {"vectorize__step": 3}, "vectorize.step: got 3; takes vectorize.maxlen, 40"),
        (
            False,
            CARRIED | {"vectorize__validation": 0.1},
            "vectorize.validation_step: got 3; takes vectorize.maxlen, 40",
        ),
        (False, TIED | {"model__embedding": 64}, r"false unless model.embedding \(here 64\) is equal"),
        (True, CARRIED, "takes reset on a GPU"),
    ],
)
def test_what_no_cpu_can_do_is_refused(params, driver, there, changes, says):
    driver(there)
    with pytest.raises(StageError, match=says):
        check.require_device(params(**changes))


@pytest.mark.parametrize(
    ("there", "changes"),
    [
        (False, {}),
        (False, {"train__precision": "mixed_bfloat16"}),
        (False, {"train__precision": "mixed_bfloat16", "model__cell": "gru", "train__targets": "all"}),
        (False, CARRIED | TIED | {"train__weight_dropout": 0.5}),
        (True, CARRIED | {"train__device": "cpu"}),
        (True, {"train__precision": "tf32"}),
        (True, {"train__precision": "mixed_bfloat16", "model__cell": "gru", "train__device": "gpu"}),
        (True, {"train__device": "gpu"}),
    ],
)
def test_what_may_be_possible_is_left_to_the_train_stage(params, driver, there, changes):
    driver(there)
    check.require_device(params(**changes))
