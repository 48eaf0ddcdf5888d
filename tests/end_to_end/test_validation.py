"""The validation split in training: which epoch is best, which is kept, when training stops."""

import json

import keras
import numpy as np
import pytest

from stages.common.history import history_of
from tests.support import of_check, outputs

# a hundred steps on some 400 windows: the model soon overfits
SPLIT = {
    "vectorize__validation": 0.35,
    "vectorize__test": 0.15,
    "model__units": 48,
    "train__learning_rate": 0.03,
    "train__batch_size": 64,
    "train__epochs": 16,
}


def losses_of(project):
    history = history_of(project.read("metrics/train/losses.tsv").decode(), "last")
    return [metrics["val_loss"] for metrics in history]


def loss_of(project, split):
    """Of the saved model, by Keras's own `evaluate`."""
    model = keras.models.load_model(project.root / "models/model.keras")
    with np.load(project.root / "data/windows.npz") as file:
        x, y, size = file[f"x_{split}"], file[f"y_{split}"], len(file["vocabulary"])
    return model.evaluate(np.eye(size)[x], np.eye(size)[y], batch_size=64, verbose=0)


def test_the_best_epoch_is_kept_and_training_stops(small):
    """Learns fast, then by heart: validation loss falls and rises. The test loss is of the kept epoch."""
    small.set_params(**SPLIT)
    for stage in ("vectorize", "train"):
        small.run("python", "-m", f"stages.{stage}")
    losses = losses_of(small)
    best = int(np.argmin(losses))
    assert 0 < best < 10, losses
    metrics = json.loads(small.read("metrics/train/metrics.json"))
    assert (metrics["best_epoch"], metrics["val_loss"]) == (best, losses[-1])
    assert loss_of(small, "val") == pytest.approx(losses[-1], abs=1e-4)
    assert loss_of(small, "test") == pytest.approx(metrics["test_loss"], abs=1e-4)

    small.set_params(train__keep="best")
    assert "16 of 16 epochs were computed before" in small.run("python", "-m", "stages.train").stdout
    assert loss_of(small, "val") == pytest.approx(min(losses), abs=1e-4)
    of_best = json.loads(small.read("metrics/train/metrics.json"))
    assert of_best["val_loss"] == min(losses)
    assert of_best["test_loss"] == pytest.approx(loss_of(small, "test"), abs=1e-4)
    assert abs(of_best["test_loss"] - metrics["test_loss"]) > 0.01  # of another epoch's weights

    small.set_params(train__patience=1)
    assert "stopped: no lower val_loss in 1 epochs" in small.run("python", "-m", "stages.train").stdout
    first_rise = next(epoch for epoch in range(1, 16) if losses[epoch] >= min(losses[:epoch]))
    assert losses_of(small) == losses[: first_rise + 1]
    assert len(list((small.root / "models/checkpoints").iterdir())) == first_rise + 1


@pytest.mark.parametrize(("name", "value", "takes"), [("keep", "best", "last"), ("patience", 3, "null")])
def test_without_a_validation_split_no_epoch_is_best(small, name, value, takes):
    """The stage `check` finds it before DVC removes a model; `train`, run by hand, looks at the windows."""
    before = outputs(small.root)
    said = f"error: train.{name}: got {value!r}; takes {takes} unless vectorize."
    small.set_params(**{f"train__{name}": value})
    assert small.dvc("repro", code=255).stderr.startswith(said)
    assert {**of_check(before), **outputs(small.root)} == before
    small.set_params(vectorize__validation=0.2)
    done = small.run("python", "-m", "stages.train", code=1)
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
