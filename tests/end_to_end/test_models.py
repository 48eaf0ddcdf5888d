"""Every parameter of the model and of training at once, in the pipeline."""

import json

import keras
import numpy as np
import pytest

from stages.text.windows import make_windows
from stages.training.checkpoints import to_bytes
from stages.training.trainer import Trainer
from tests.support import CARRIED, CARRIED_3, EVERYTHING, make_text


def test_every_parameter_at_once_in_the_pipeline(small):
    """Two GRU layers trained on all targets: the model keeps the article's shapes and texts follow it."""
    small.set_params(**EVERYTHING, model__cell="gru", train__keep="best", train__epochs=3)
    small.set_params(train__preview=5, sample__length=15)
    small.run("python", "-m", "stages.vectorize")
    said = small.run("python", "-m", "stages.train").stdout.splitlines()
    small.run("python", "-m", "stages.sample")
    model = keras.models.load_model(small.root / "models/model.keras")
    with np.load(small.root / "data/windows.npz") as file:
        x, y, vocabulary = file["x_val"], file["y_val"], file["vocabulary"]
    size, maxlen = len(vocabulary), EVERYTHING["vectorize__maxlen"]
    assert model.input_shape == (None, maxlen, size)
    assert model.output_shape == (None, size)
    assert type(model.optimizer).__name__ == "Adam"
    metrics = json.loads(small.read("metrics/train/metrics.json"))
    validation = model.evaluate(np.eye(size)[x], np.eye(size)[y], verbose=0)
    assert validation == pytest.approx(metrics["val_loss"], abs=1e-4)

    lines = [json.loads(line) for line in small.read("metrics/samples.jsonl").splitlines()]
    previews = [said[n + 1] for n, line in enumerate(said) if line.startswith("epoch ")]
    assert previews == [f"  {s['text'][:5]}" for s in lines if s["temperature"] == 0.5]
    best = [s for s in lines if (s["epoch"], s["temperature"]) == (metrics["best_epoch"], 0.0)]
    text = best[0]["prompt"]
    for _ in range(15):
        window = np.eye(size)[[list(vocabulary).index(character) for character in text[-maxlen:]]]
        text += vocabulary[model.predict(window[None], verbose=0)[0].argmax()]
    assert best[0]["text"] == text[maxlen:]
    command = ["python", "-m", "stages.generate", "--temperature", "0", "--length", "15"]
    assert small.run(*command).stdout == text[maxlen:] + "\n"


@pytest.mark.parametrize("kind", ["the article's", "gru", "carried"])
def test_a_restored_state_goes_on_to_the_same_bytes(params, kind):
    article = {"vectorize__maxlen": 4, "model__units": 16, "train__batch_size": 64, "train__preview": 0}
    article |= {"train__microbatches": 3}
    changes: dict[str, dict] = {
        "the article's": article,
        "gru": EVERYTHING | {"model__cell": "gru", "train__steps_per_epoch": 5},
        "carried": CARRIED | {"train__steps_per_epoch": 5} | CARRIED_3,
    }
    settings = params(**changes[kind])
    windows = make_windows(make_text(1500), settings.vectorize)
    straight = Trainer(settings, windows, "cpu")
    straight.epoch(0)
    kept = straight.checkpoint("", {})
    resumed = Trainer(settings, windows, "cpu")
    resumed.restore(kept)
    assert straight.epoch(1) == resumed.epoch(1)
    ours, theirs = straight.checkpoint("", {}), resumed.checkpoint("", {})
    assert to_bytes(ours) == to_bytes(theirs) != to_bytes(kept)
    assert bool(ours.training_weights) == (kind == "carried")
