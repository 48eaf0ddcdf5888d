"""Microbatches: the order in which their results are summed, in one process and in several."""

import numpy as np
import pytest
import tensorflow as tf

from stages.distributed.strategy import AllGather, Distribution
from stages.model.microbatches import over_microbatches

KEY = np.array([1, 2], np.int32)


@pytest.mark.parametrize(
    ("values", "total"),
    [
        # float32 has no 1e8 + 1: what is added to 1e8 is lost
        ([10**8, 1, -(10**8), 1], 1),  # from last to first, and in pairs: 0
        ([10**8, -(10**8), 1, 1], 2),  # from last to first: 0
    ],
)
def test_losses_and_gradients_are_summed_from_first_to_last(values, total):
    def of_microbatch(x, y, share, key):
        return tf.cast(x[0, 0], tf.float32), [tf.cast(x, tf.float32)[:1], -tf.cast(x[0], tf.float32)]

    x = np.array([[value, value] for value in values], np.int32)
    y = np.zeros(len(values), np.int32)
    step = tf.function(over_microbatches(of_microbatch, len(values)), autograph=False)
    loss, gradients = step(x, y, np.ones(len(values), np.float32), KEY)
    assert float(loss) == total
    np.testing.assert_array_equal(gradients[0], [[total, total]])
    np.testing.assert_array_equal(gradients[1], [-total, -total])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_results_of_workers_are_in_the_order_of_the_microbatches(index):
    """The strategy gathers in an order of its own; here worker 2's rows come first."""
    order, microbatches = [2, 0, 1], 5
    rng = np.random.default_rng(0)
    results = [
        tuple(rng.normal(size=shape).astype(np.float32) for shape in [(), (2, 3), (4,)])
        for _ in range(microbatches)
    ]
    shares = {0: [0], 1: [1, 2], 2: [3, 4]}
    blocks = {
        worker: [np.concatenate([array.ravel() for array in results[n]]) for n in share]
        for worker, share in shares.items()
    }
    blocks[0].append(np.zeros(11, np.float32))  # all blocks are equally long

    class Strategy:
        """Of three workers; the other two are played."""

        def run(self, _, args):
            (rows,) = args
            if rows.shape == (1, 1):
                return tf.constant([[worker] for worker in order])
            np.testing.assert_array_equal(rows, blocks[index])
            return tf.constant(np.concatenate([blocks[worker] for worker in order]), tf.float32)

    exchange = AllGather(Distribution(Strategy(), 3, index), microbatches)  # type: ignore[arg-type]
    assert list(exchange.own) == shares[index]
    gathered = exchange([(tf.constant(results[n][0]), list(results[n][1:])) for n in exchange.own])
    assert len(gathered) == microbatches
    for (loss, gradients), expected in zip(gathered, results, strict=True):
        for ours, theirs in zip((loss, *gradients), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
