"""The leaderboard's own parts: what lines of output say, their times, and the training in PyTorch."""

import math

import numpy as np
import pytest

from benchmarks.leaderboard_rows import Result, middle_of
from benchmarks.timed_lines import (
    EPOCH,
    STEP,
    Timed,
    curve_of,
    judged,
    seconds_of_stage,
    seconds_to,
    timed_lines,
)
from stages.text.windows import make_windows
from stages.training import validation
from stages.training.trainer import Trainer
from tests.support import make_text

REPRO = [
    (1.0, "Running stage 'vectorize':"),
    (1.5, "Running stage 'train':"),
    (1.5, "> python -m stages.train"),
    (
        9.0,
        "epoch 0 (of 0 to 2): loss 3.1, bits_per_char 4.5, val_loss 2.5000, val_bits_per_char 3.6; 7 s",
    ),
    (9.0, "  the model wrote: val_loss 0.1"),
    (9.0, "epoch 9, it wrote on, val_loss 0.2, in a line of its own"),
    (
        20.0,
        "epoch 1 (of 0 to 2): loss 2.1, val_loss 1.8860, val_all_loss 1.7, val_bits_per_char 2.7; 7 s",
    ),
    (30.0, "epoch 2 (of 0 to 2): loss 1.9, val_loss 1.9000, val_bits_per_char 2.7; 7 s"),
    (31.0, "test split, the model of epoch 1: test_loss 1.9100, test_bits_per_char 2.7"),
    (32.0, "Running stage 'sample':"),
]
NANOGPT = [
    (2.0, "number of parameters: 0.80M"),
    (3.0, "step 0: train loss 4.1676, val loss 4.1649"),
    (3.5, "iter 0: loss 4.2, time 100.00ms, mfu -100.00%"),
    (9.0, "step 250: train loss 2.4, val loss 2.3993"),
]


def test_losses_and_their_times_are_read_out_of_lines():
    curve = curve_of(REPRO, EPOCH)
    assert curve == {0: (9.0, 2.5), 1: (20.0, 1.886), 2: (30.0, 1.9)}
    assert judged(REPRO) == (1, 1.91)
    reached = {loss: seconds_to(curve.values(), loss) for loss in (2.5, 2.0, 1.886, 1.885)}
    assert reached == {2.5: 9.0, 2.0: 20.0, 1.886: 20.0, 1.885: math.inf}
    done = Timed(40.0, REPRO)
    assert [seconds_of_stage(done, stage) for stage in ("vectorize", "train", "sample")] == [0.5, 30.5, 8.0]
    assert curve_of(NANOGPT, STEP) == {0: (3.0, 4.1649), 250: (9.0, 2.3993)}
    with pytest.raises(ValueError, match="no line"):
        curve_of(NANOGPT, EPOCH)


def test_a_turn_that_does_not_reach_a_loss_counts_as_the_slowest():
    turns = [
        Result("5", 1.0, 3.0, 2.0, s, s / 2, (s, at)) for s, at in ((4, 4), (9, math.inf), (6, math.inf))
    ]
    assert middle_of(turns) == Result("5", 1.0, 3.0, 2.0, 6, 3, (6, math.inf))
    assert math.isnan(middle_of([turns[0]._replace(validation=math.nan)]).validation)


def test_each_line_has_the_time_at_which_it_came(tmp_path):
    """The lines are not written one by one: a pipe is buffered unless the process is told otherwise."""
    script = "import time; print('first'); time.sleep(0.5); print('zwölf'); time.sleep(0.5)"
    done = timed_lines(["-c", script], tmp_path)
    (first, one), (second, two) = done.lines
    assert (one, two) == ("first", "zwölf")
    assert second - first >= 0.4
    assert done.seconds - second >= 0.4
    with pytest.raises(SystemExit, match=r"exited with 3: said\nwhy"):
        timed_lines(["-c", "import sys; print('said'); sys.stderr.write('why'); sys.exit(3)"], tmp_path)


@pytest.mark.parametrize("embedding", [None, 7])
def test_pytorch_trains_as_the_pipeline_does(params, embedding):
    pytest.importorskip("torch")
    import torch

    from benchmarks import torch_recipe

    settings = params(
        vectorize__maxlen=9,
        vectorize__step=9,
        vectorize__validation_step=9,
        vectorize__validation=0.2,
        model__units=12,
        model__embedding=embedding,
        train__batch_size=16,
        train__microbatches=2,
        train__targets="all",
        train__state="carried",
        train__optimizer="adam",
        train__learning_rate=0.01,
        train__schedule="cosine",
        train__warmup_epochs=0.5,
        train__decay_epochs=2,
        train__clip_norm=0.1,
        train__preview=0,
        train__keep="best",
    )
    windows = make_windows(make_text(4000), settings.vectorize)
    trainer = Trainer(settings, windows, "cpu")
    other = torch_recipe.Training(settings, windows)
    assert (validation.LANES, validation.WARM_UP) == (torch_recipe.LANES, torch_recipe.WARM_UP)
    assert sum(each.numel() for each in other.weights) == trainer.model.count_params()
    ours = as_pytorch_has_them(trainer)
    for weight, value, drawn in zip(other.weights, ours, copies(other), strict=True):
        assert drawn.shape == value.shape
        np.testing.assert_allclose(drawn.std(), value.std(), atol=0.05)  # the same distributions
        weight.data = torch.from_numpy(value.copy())
    for epoch in range(2):
        expected = trainer.epoch(epoch)
        assert other.epoch(epoch) == pytest.approx(expected["loss"], abs=1e-4)
        measured = other.evaluate(windows.x_val, windows.y_val)
        assert measured == pytest.approx(expected["val_loss"], abs=1e-4)
    for weight, value, start in zip(copies(other), as_pytorch_has_them(trainer), ours, strict=True):
        np.testing.assert_allclose(weight, value, atol=1e-3)
        assert np.abs(value - start).max() > 0.05  # they have moved by far more than they differ
    norms = [each.grad.norm().item() ** 2 for each in other.weights]
    assert sum(norms) == pytest.approx(0.1**2, rel=1e-3)  # the last step was clipped


def copies(training):
    """The weights as arrays of their own."""
    return [each.detach().numpy().copy() for each in training.weights]


def as_pytorch_has_them(trainer):
    """The weights of the pipeline's model: kernels transposed, the embedding's table not."""
    return [
        value.T if value.ndim == 2 and weight.path.split("/")[-2] != "embedding" else value
        for weight, value in zip(trainer.model.weights, trainer.model.get_weights(), strict=True)
    ]
