"""Training that starts from the weights of an earlier experiment, as a user does it."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from stages.model.architecture import optimizer_state
from stages.text.vocabulary_file import model_text, write_model_text
from stages.text.windows import make_windows
from stages.training.trainer import Trainer
from tests.end_to_end.test_pipeline import ran
from tests.support import make_text


def test_an_experiment_s_weights_are_fetched_and_continued(small):
    """Without a step that moves a weight, epoch 0 has the loss of the model that it starts from."""
    small.dvc("exp", "run", "-S", "train.learning_rate=0.02", "--name", "first", "train")
    small.run("git", "checkout", "params.yaml")
    small.dvc("repro", "train")
    for file in ("model.keras", "vocabulary.json"):
        small.dvc("get", ".", f"models/{file}", "--rev", "first", "-o", f"initial/first/{file}")
    old = keras.models.load_model(small.root / "initial/first/model.keras")
    small.set_params(
        train__init_from="initial/first/model.keras", train__learning_rate=1e-30, train__epochs=1
    )
    done = small.dvc("repro", "train")
    assert ran(done) == ["train"]
    with np.load(small.root / "data/windows.npz") as file:
        x, y, size = file["x"], file["y"], len(file["vocabulary"])
    expected = old.evaluate(np.eye(size)[x], np.eye(size)[y], verbose=0)
    loss = json.loads(small.read("metrics/train/metrics.json"))["loss"]
    assert loss == pytest.approx(expected, abs=1e-5)
    new = keras.models.load_model(small.root / "models/model.keras")
    for ours, theirs in zip(new.get_weights(), old.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)

    assert ran(small.dvc("repro", "train")) == []
    shutil.copytree(small.root / "initial/first", small.root / "initial/second")
    other = small.root / "initial/second/model.keras"
    # the same bytes; each process reads them
    small.set_params(train__init_from="initial/second", train__workers=2)
    done = small.dvc("repro", "train")
    assert "1 of 1 epochs were computed before" in done.stdout

    small.dvc("get", ".", "models/model.keras", "--rev", "HEAD", "-o", str(other), "--force")
    changed = small.dvc("repro", "train")  # nothing but the file has changed
    assert ran(changed) == ["train"]
    assert "were computed before" not in changed.stdout
    of_head = keras.models.load_model(other).get_weights()
    new = keras.models.load_model(small.root / "models/model.keras").get_weights()
    for ours, theirs in zip(new, of_head, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)
    assert not np.allclose(new[0], old.get_weights()[0], atol=1e-3)


def test_a_mistake_is_named_before_a_model_is_removed(small, tmp_path):
    shutil.copytree(small.root / "models", tmp_path / "start")
    (small.root / "initial/linked").symlink_to(tmp_path / "start")
    shutil.copytree(small.root / "models", small.root / "initial/start")
    before = small.read("models/model.keras")
    (small.root / "initial/start/model").write_bytes(before)
    for path, says in (
        (
            str(tmp_path / "start"),
            "takes initial/random or the path of a model in initial/ (copy yours there)",
        ),
        (
            "initial/start",
            "initial/start/model.keras has model.units: 16; takes a model with model.units: 17",
        ),
        ("initial/start/model", "got 'initial/start/model'; takes a file whose name ends in .keras or .npz"),
        ("initial/linked", "initial/linked/model.keras is in a folder that is a link, where DVC notices no"),
    ):
        small.set_params(train__init_from=path, model__units=16 if path == "initial/linked" else 17)
        done = small.dvc("repro", code=255)
        first, _ = done.stderr.strip().splitlines()
        assert first.startswith("error: ")
        assert says in first
    options = ("-S", "model.units=16", "-S", "train.init_from=initial/start", "train")
    done = small.dvc("exp", "run", "--temp", *options, code=None)
    assert "is not there (add -C and the model's folder to dvc exp run)" in done.stderr
    assert small.read("models/model.keras") == before
    small.set_params(train__init_from="initial/start", model__units=16)
    small.run("python", "-m", "stages.check")
    (small.root / "initial/start/model.keras").write_bytes(before + b"0")
    done = small.run("python", "-m", "stages.train", code=1)
    assert done.stderr.startswith("error: initial/start/model.keras is not what the stage check read; ")
    assert small.read("models/model.keras") == before


def test_another_text_starts_from_what_was_learned(params, tmp_path, monkeypatch):
    """A model of one text begins another text, with other characters, at a lower loss than random weights."""
    given = {"vectorize__maxlen": 9, "vectorize__validation": 0.3, "model__units": 24}
    given |= {"train__batch_size": 32, "train__preview": 0, "train__microbatches": 2}
    settings = params(**given)
    windows = make_windows(make_text(6000).lower(), settings.vectorize)
    first = Trainer(settings, windows, "cpu")
    for epoch in range(2):
        first.epoch(epoch)
    monkeypatch.chdir(tmp_path)
    folder = Path("initial/first")
    folder.mkdir(parents=True)
    first.save(folder / "model.keras")
    write_model_text(folder, model_text(windows, settings.vectorize, carried=False))
    other = make_windows("§" + make_text(3000, seed=1).replace("k", "K").lower() + "€", settings.vectorize)
    assert other.vocabulary != windows.vocabulary
    from_it = params(**given, train__init_from=str(folder))
    continued, fresh = (Trainer(each, other, "cpu") for each in (from_it, params(**given)))
    learned, random = (each.evaluate(other.x_val, other.y_val, "")["loss"] for each in (continued, fresh))
    assert learned < random - 0.3
    assert optimizer_state(continued.optimizer)[0] == 0  # steps taken
