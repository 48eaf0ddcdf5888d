"""A GPU learns what the CPU learns, in every precision, with and without cuDNN, alone and with others."""

from typing import Any

import numpy as np
import pytest

from tests.gpu.gpu_support import about_the_device, losses, same_weights, trained, untrained, weights
from tests.support import EVERYTHING

# Rounding in another order changes these losses by 4e-7 at most (a CPU with 1 and with 4 microbatches). What
# has to be noticed changes them by more: products in bfloat16 by 1.3e-3, other dropout masks by 1.6e-2,
# another seed by 7e-2. All measured on a CPU with the settings of these tests, three epochs.
ROUNDING = 5e-4
# TensorFloat-32 keeps 10 bits of a factor and bfloat16 7; float32 keeps 23
TF32 = 5e-3
BFLOAT16 = 5e-2

CASES: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {"model__cell": "gru"},
    "rnn": {"model__cell": "rnn"},
    "two layers, dropout": {"model__layers": 2, "model__dropout": 0.3},
    "embedding": {"model__embedding": 5},
    "targets all": {"train__targets": "all"},
    "clip_norm": {"train__clip_norm": 0.05},
    "validation": {"vectorize__validation": 0.2},
    "everything": EVERYTHING | {"vectorize__maxlen": 9, "model__embedding": 5, "train__clip_norm": 0.05},
}


def assert_learned_alike(ours, theirs, tolerance: float) -> None:
    """The losses of all epochs are near those of another project, and training did something."""
    mine, expected = losses(ours), losses(theirs)
    difference = max(abs(mine[key] - expected[key]) for key in mine.keys() | expected.keys())
    print(
        f"largest difference of a loss: {difference:.1e}; of a weight: {largest_difference(ours, theirs):.1e}"
    )
    assert mine == pytest.approx(expected, rel=0, abs=tolerance)
    of_training = [loss for (_, part), loss in mine.items() if part.startswith("training")]
    assert of_training[-1] < of_training[0]


def largest_difference(ours, theirs) -> float:
    pairs = zip(weights(ours), weights(theirs), strict=True)
    return max(float(np.abs(mine - other).max()) for mine, other in pairs)


@pytest.mark.parametrize("case", CASES)
def test_the_losses_are_those_of_the_cpu(device, plain, tmp_path, case):
    """Dropout draws anew for each part of a batch; one GPU computes one part, so the CPU does, too."""
    settings = CASES[case]
    parts = {"train__microbatches": 1}
    on_gpu = plain
    assert about_the_device(plain)["device"] == device.name
    if settings:  # in a rehearsal the two sides differ in their microbatches, where dropout allows it
        ours = settings | (parts if "model__dropout" in settings else {})
        on_gpu = trained(tmp_path / "gpu", device.name, **ours)
    on_cpu = trained(tmp_path / "cpu", "cpu", **settings | parts)
    assert_learned_alike(on_gpu, on_cpu, ROUNDING)
    assert ("0", "validation") in losses(on_gpu) or "vectorize__validation" not in settings


@pytest.mark.parametrize(("precision", "tolerance"), [("tf32", TF32), ("mixed_bfloat16", BFLOAT16)])
def test_a_lower_precision_learns_nearly_the_same(device, plain, tmp_path, precision, tolerance):
    if device.rehearsal and precision == "tf32":
        pytest.skip("rehearsal: a CPU has no TensorFloat-32")
    if not device.rehearsal and device.gpus.capability() < (8, 0):
        pytest.skip("TensorFloat-32 and bfloat16 take a GPU of compute capability 8.0 or higher")
    lower = trained(tmp_path / "lower", device.name, train__precision=precision)
    assert_learned_alike(lower, plain, tolerance)
    assert not same_weights(lower, plain)  # or the parameter did nothing


def test_without_cudnn_the_losses_are_the_same(device, plain, tmp_path):
    """Other kernels round differently, so equal weights mean that the parameter did nothing."""
    without = untrained(tmp_path, device.name, train__use_cudnn=False)
    said = without.run("python", "-m", "stages.train").stdout
    assert ("without cuDNN: train.use_cudnn is false" in said) != device.rehearsal
    assert_learned_alike(without, plain, ROUNDING)
    assert same_weights(without, plain) == device.rehearsal  # a CPU has no cuDNN


def skip_unless_several(device) -> None:
    if not device.rehearsal and len(device.gpus.details) < 2:
        pytest.skip("takes two GPUs; with CPU devices: tests/end_to_end/test_devices.py")


@pytest.mark.parametrize("workers", [1, 2])
def test_several_gpus_learn_what_one_learns(device, plain, tmp_path, workers):
    skip_unless_several(device)
    several = trained(tmp_path / "several", device.name, all_gpus=True, train__workers=workers)
    assert about_the_device(several)["gpus"] == len(device.gpus.details) // workers  # of each process
    assert_learned_alike(several, plain, ROUNDING)
    # the sum over several parts of a batch rounds differently, or one GPU did all of it
    assert same_weights(several, plain) == device.rehearsal
