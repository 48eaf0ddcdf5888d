"""The held-out part in training: which epoch is best, which is kept, when training stops."""

import json

import keras
import numpy as np
import pytest

from stages.figures import best_epoch

# a hundred steps on some 400 windows: the model soon has them by heart
HELD_OUT = {
    "vectorize__validation": 0.5,
    "model__units": 48,
    "train__learning_rate": 0.03,
    "train__batch_size": 64,
    "train__epochs": 16,
}


def losses_of(project):
    rows = project.read("metrics/train/plots/metrics/val_loss.tsv").decode().splitlines()[1:]
    return [float(row.split("\t")[1]) for row in rows]


def held_out_loss(project, model):
    """Of a saved model, by Keras's own `evaluate`."""
    with np.load(project.root / "data/windows.npz") as file:
        x, y, size = file["x_val"], file["y_val"], len(file["charset"])
    return model.evaluate(np.eye(size)[x], np.eye(size)[y], batch_size=64, verbose=0)


def test_the_best_epoch_is_kept_and_training_stops(small):
    """Learns fast, then by heart: held-out loss falls and rises."""
    small.set_params(**HELD_OUT)
    small.dvc("repro", "train")
    losses = losses_of(small)
    best = int(np.argmin(losses))
    assert 0 < best < 10, losses
    metrics = json.loads(small.read("metrics/train/metrics.json"))
    assert (metrics["best_epoch"], metrics["best_val_loss"]) == (best, min(losses))
    assert metrics["val_bits_per_char"] == pytest.approx(losses[-1] / np.log(2))
    path = small.root / "models/model.keras"
    assert held_out_loss(small, keras.models.load_model(path)) == pytest.approx(losses[-1], abs=1e-4)

    small.set_params(train__keep="best")
    assert "16 of 16 epochs were computed before" in small.dvc("repro", "train").stdout
    assert held_out_loss(small, keras.models.load_model(path)) == pytest.approx(min(losses), abs=1e-4)

    small.set_params(train__patience=1)
    assert "stopped: no lower val_loss in 1 epochs" in small.dvc("repro", "train").stdout
    first_rise = next(epoch for epoch in range(1, 16) if losses[epoch] >= min(losses[:epoch]))
    assert losses_of(small) == losses[: first_rise + 1]
    assert len(list((small.root / "models/epochs").iterdir())) == first_rise + 1


@pytest.mark.parametrize(("name", "value", "takes"), [("keep", "best", "last"), ("patience", 3, "null")])
def test_without_a_held_out_part_nothing_is_best(small, name, value, takes):
    small.set_params(**{f"train__{name}": value})
    said = small.run("python", "-m", "stages.train", code=1).stderr
    assert said.startswith(f"error: train.{name}: got {value!r}; takes {takes} unless vectorize.")
    assert said.count("\n") == 1


def test_the_best_epoch_is_the_first_of_the_lowest():
    assert best_epoch([{"loss": 1.0}]) is None
    assert best_epoch([{"val_loss": value} for value in (2.0, 1.0, 1.5, 1.0)]) == 1
