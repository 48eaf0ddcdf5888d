"""The streaming sampler against closed forms."""

import numpy as np
import pytest

from stages.model.streaming import draw


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, 3), (2.0, 1), (1.0, 99)])
def test_draws_have_the_distribution_of_softmax(temperature, top_k):
    logits = np.array([0.3, -1.0, 2.0, 0.3, 1.1], np.float32)
    likeliest = sorted(range(5), key=lambda i: (-logits[i], i))[: top_k or 5]
    expected = np.zeros(5)
    expected[likeliest] = np.exp(logits[likeliest].astype(float) / temperature)
    expected /= expected.sum()
    uniforms = (np.arange(20_000) + 0.5) / 20_000
    drawn = np.bincount([draw(logits, temperature, top_k, u) for u in uniforms], minlength=5) / 20_000
    np.testing.assert_allclose(drawn, expected, atol=2e-4)


def test_extreme_draws_stay_within_the_vocabulary():
    logits = np.array([0.0, 1000.0, -1000.0], np.float32)
    almost_one = np.nextafter(1, 0)
    assert [draw(logits, t, None, almost_one) for t in (0, 1e-300, 0.5)] == [1, 1, 1]
    assert draw(np.zeros(3, np.float32), 1.0, None, almost_one) == 2
    assert draw(np.zeros(3, np.float32), 1.0, 2, 0.0) == 0
