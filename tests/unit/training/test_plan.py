"""Epochs of a given number of steps: pieces of the passes over the text, in their order."""

import numpy as np
import pytest

from stages.text.windows import make_windows
from stages.training.plan import Plan
from stages.training.trainer import Trainer
from tests.support import CARRIED, FEW, make_text

N = 103  # no multiple of a batch


@pytest.fixture
def plan(params):
    def make(**changes):
        return Plan(params(**changes).train, N)

    return make


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_epochs_of_some_steps_are_the_passes_cut_elsewhere(plan, steps):
    whole, parts = plan(train__batch_size=10), plan(train__batch_size=10, train__steps_per_epoch=steps)
    assert (whole.steps, whole.windows) == (11, N)
    passes = np.concatenate([whole(number)[0] for number in range(4)])
    orders = [parts(epoch)[0] for epoch in range(3 * N // (10 * steps) + 1)]
    assert {len(order) for order in orders} == {10 * steps} == {parts.windows}
    joined = np.concatenate(orders)[: len(passes)]
    assert len(joined) >= 2 * N
    np.testing.assert_array_equal(joined, passes[: len(joined)])
    for number in range(len(joined) // N):  # each window once in each pass
        assert sorted(joined[number * N :][:N]) == list(range(N))


def test_an_epoch_is_one_pass_at_most(plan):
    whole, longer = plan(train__batch_size=10), plan(train__batch_size=10, train__steps_per_epoch=11)
    assert (longer.steps, longer.windows) == (11, N)
    np.testing.assert_array_equal(longer(1)[0], whole(1)[0])


def test_a_lane_reads_on_from_epoch_to_epoch(plan):
    changes = CARRIED | {"train__batch_size": 10}
    whole, parts = plan(**changes), plan(**changes | {"train__steps_per_epoch": 4})
    passes = np.concatenate([whole(number)[0] for number in range(2)])
    joined = np.concatenate([parts(epoch)[0] for epoch in range(5)])
    np.testing.assert_array_equal(joined, passes)
    steps = joined.reshape(20, 10)
    assert (np.diff(steps, axis=0)[[*range(9), *range(10, 19)]] % N == 1).all()


def test_rates_go_on_and_no_two_steps_draw_the_same(plan):
    settings = {"train__schedule": "cosine", "train__decay_epochs": 6, "train__warmup_epochs": 2}
    parts = plan(train__batch_size=10, train__steps_per_epoch=4, **settings)
    rates = np.concatenate([parts(epoch)[2] for epoch in range(9)])
    warm, progress = np.arange(1, 9) / 8, np.arange(24) / 24
    falling = 1 - (1 - np.cos(np.pi * progress)) / 2 * 0.9
    np.testing.assert_allclose(rates, 0.01 * np.concatenate([warm, falling, np.full(4, 0.1)]), rtol=1e-6)
    keys = np.concatenate([parts(epoch)[1] for epoch in range(9)])
    assert len(np.unique(keys, axis=0)) == len(keys) == 36


def test_two_halves_of_a_pass_train_as_the_pass_does(params):
    """Byte for byte, the second half by a trainer that starts from the first one's checkpoint."""

    def trainer(**changes):
        settings = params(**FEW, train__batch_size=16, **changes)
        return Trainer(settings, make_windows(make_text(5 + 3 * 96), settings.vectorize), "cpu")

    whole, first, second = trainer(), *(trainer(train__steps_per_epoch=3) for _ in range(2))
    assert (whole.plan.steps, len(whole.windows.x)) == (6, 96)
    loss = whole.epoch(0)["loss"]
    losses = [first.epoch(0)["loss"]]
    checkpoint = first.checkpoint("", {})
    second.restore(checkpoint)
    losses.append(second.epoch(1)["loss"])
    assert loss == pytest.approx(np.mean(losses), rel=1e-12)
    for ours, half, expected in zip(
        second.model.get_weights(), checkpoint.weights, whole.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)
        assert not np.array_equal(half, expected)
