"""The checkpoint store: what a changed code computes again, and what is pruned."""

import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from stages.common.errors import StageError
from stages.common.params import Download
from stages.text.sources import get_corpus
from stages.training.checkpoints import Checkpoint
from stages.training.store import open_store
from tests.support import Project, changed_params, make_text, outputs

STORE = ".dvc/cache/checkpoints"
REWORDED = [
    "common/randomness.py",
    "common/params.py",
    "model/fused_lstm.py",
    "training/trainer.py",
    "training/schedule.py",
]


def stored(project: Project) -> set[str]:
    """The runs in the store."""
    return {path.name for path in (project.root / STORE).iterdir()}


def first_epoch_of_a_new_run(project: Project, before: str) -> Path:
    """Wait until a run beside the one of before has an epoch in the store; returns its folder."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for run in stored(project) - {before}:
            if list((project.root / STORE / run).glob("epoch*")):
                return project.root / STORE / run
        time.sleep(0.05)
    raise AssertionError("no epoch was computed")


def test_reworded_modules_compute_no_epoch(small):
    """Another comment, docstring and line break in five modules that the train stage depends on."""
    before = outputs(small.root)
    for name in REWORDED:
        path = small.root / "stages" / name
        text = path.read_text(encoding="utf-8")
        first, rest = text.split('"""', 2)[1:]
        rest = rest.replace("\n\n\n", "\n\n\n\n# another line\n")
        reworded = f'"""{first} Put in other words."""\n# a comment\n{rest}'
        path.write_text(reworded, encoding="utf-8")
        assert "# a comment" in path.read_text(encoding="utf-8")
    done = small.dvc("repro", "train")
    assert "Running stage 'train'" in done.stdout
    assert "2 of 2 epochs were computed before and are taken over" in done.stdout
    assert "epoch 0 (of" not in done.stdout
    assert outputs(small.root) == before


def test_a_changed_constant_computes_all_epochs(small):
    path = small.root / "stages/model/fused_lstm.py"
    text = path.read_text(encoding="utf-8")
    assert "c = f * c + i * g" in text
    path.write_text(text.replace("c = f * c + i * g", "c = f * c + i * g * 1.5"), encoding="utf-8")
    done = small.dvc("repro", "train")
    assert "were computed before" not in done.stdout
    assert "epoch 1 (of 0 to 1)" in done.stdout


def test_pruning_keeps_what_a_lock_reaches(small):
    """Runs of the branch, an experiment and the workspace are kept, the others deleted."""
    (branch,) = stored(small)
    small.dvc("exp", "run", "--name", "kept", "-S", "train.learning_rate=0.02", "train")
    (experiment,) = stored(small) - {branch}
    left_behind = "f" * 64  # of parameters that no lock has
    (small.root / STORE / left_behind).mkdir()
    for path in (small.root / STORE / branch).iterdir():
        (small.root / STORE / left_behind / path.name).write_bytes(path.read_bytes() + b"others")
    small.set_params(train__learning_rate=0.04)
    small.dvc("repro", "train")
    (workspace,) = stored(small) - {branch, experiment, left_behind}

    def prune(*options, code=0):
        return small.run("python", "-m", "stages.prune", *options, code=code)

    assert prune().stdout == "deleted: 0 runs (freed: 0.0 MB); kept: 4 runs\n"  # all were written today
    done = prune("--days", "0", "--dry-run")
    assert f"{left_behind[:12]}: 2 epochs" in done.stdout
    assert "to delete: 1 runs (freed: 0.1 MB); kept: 3 runs" in done.stdout
    assert stored(small) == {branch, experiment, left_behind, workspace}

    used = os.open(small.root / STORE / left_behind, os.O_RDONLY)
    fcntl.flock(used, fcntl.LOCK_SH)  # as a training run does
    assert "deleted: 0" in prune("--days", "0").stdout
    os.close(used)
    assert "deleted: 1" in prune("--days", "0").stdout
    assert stored(small) == {branch, experiment, workspace}

    for listing in (small.root / ".dvc/cache/files").rglob("*.dir"):
        listing.unlink()  # what DVC's cache lacks makes no difference
    small.dvc("exp", "remove", "kept")
    assert "deleted: 1" in prune("--days", "0").stdout
    assert stored(small) == {branch, workspace}

    (small.root / "dvc.lock").write_text("stages: [", encoding="utf-8")
    done = prune("--days", "0", code=1)
    assert done.stderr.startswith("error: it is unknown which checkpoints are needed, so none is deleted: ")
    assert done.stderr.count("\n") == 1
    assert stored(small) == {branch, workspace}


def test_a_shared_cache_gives_its_group_what_dvc_gives(tmp_path, monkeypatch):
    """`dvc config cache.shared group`, and a umask that shuts the group out: the modes of DVC's own files."""
    monkeypatch.chdir(tmp_path)
    text = make_text(100)
    Path("book.txt").write_text(text, encoding="utf-8")
    about = {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    Path("corpora").mkdir()
    Path("corpora/book.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
    monkeypatch.setenv("CORPUS_DIR", str(tmp_path))
    tree = changed_params(download__corpus="corpora/book.yaml")
    umask = os.umask(0o077)
    try:
        for command in (
            ["init", "--quiet", "--no-scm"],
            ["config", "cache.shared", "group"],
            ["add", "book.txt"],
        ):
            subprocess.run([sys.executable, "-m", "dvc", *command], check=True, capture_output=True)
        open_store("f" * 64).write(Checkpoint(0, "f" * 64, {}, "", {}, [], []))
        get_corpus(Download(**tree["download"]))
    finally:
        os.umask(umask)
    cache = tmp_path / ".dvc/cache"
    modes = {str(path.relative_to(cache)): stat.S_IMODE(path.stat().st_mode) for path in cache.rglob("*")}
    assert modes["files/md5"] == 0o2775  # DVC's own
    ours = {path: mode for path, mode in modes.items() if not path.startswith("files")}
    assert ours == {
        "corpora": 0o2775,
        f"corpora/{about['sha256']}": 0o664,
        "checkpoints": 0o2775,
        f"checkpoints/{'f' * 64}": 0o2775,
        f"checkpoints/{'f' * 64}/epoch-000.npz": 0o664,
    }


def test_a_damaged_lock_is_named(small, monkeypatch):
    before = outputs(small.root)
    monkeypatch.chdir(small.root)
    for content in ("stages: [", "nothing: 1", "stages: 3", "\0"):
        Path("dvc.lock").write_text(content, encoding="utf-8")
        with pytest.raises(StageError, match=r"^DVC: .*dvc\.lock"):
            open_store("f" * 64)
    done = small.run("python", "-m", "stages.train", code=1)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning")]
    assert len(errors) == 1
    assert errors[0].startswith("error: DVC: ")
    assert outputs(small.root) == before


def test_a_run_in_progress_is_locked(small):
    """The process is training when its store is looked at."""
    small.set_params(train__epochs=400, train__seed=5)
    (before,) = stored(small)
    process = small.start("python", "-m", "stages.train", fork=False)  # a fork ends some time after it
    run = first_epoch_of_a_new_run(small, before)
    lock = os.open(run, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert process.poll() is None
    process.kill()
    process.wait()
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


def test_the_store_may_be_deleted_while_a_run_trains(small):
    """The best epoch is an early one, so it was only in the store that is gone and in `models/`."""
    small.set_params(train__epochs=60, train__seed=5, train__keep="best", train__learning_rate=0.05)
    small.set_params(vectorize__validation=0.5)
    small.dvc("repro", "vectorize")
    (before,) = stored(small)
    process = small.start("python", "-m", "stages.train")
    run = first_epoch_of_a_new_run(small, before)
    while not (run / "epoch-029.npz").exists():
        assert process.poll() is None
        time.sleep(0.005)
    (small.root / STORE).rename(small.root / "deleted")  # at once, where `rm -r` would meet new files
    assert process.poll() is None
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert len(list((small.root / "models/checkpoints").iterdir())) == 60
    assert not (run / "epoch-029.npz").exists()
    assert (run / "epoch-059.npz").exists()
    best = json.loads(small.read("metrics/train/metrics.json"))["best_epoch"]
    assert best < 29
    model = keras.models.load_model(small.root / "models/model.keras")
    with np.load(small.root / f"models/checkpoints/epoch-{best:03d}.npz") as checkpoint:
        for number, weight in enumerate(model.get_weights()):
            np.testing.assert_array_equal(weight, checkpoint[f"weights_{number:03d}"])


@pytest.mark.parametrize("option", [["--days", "-1"], ["--days", "x"], ["--all"]])
def test_a_wrong_option_is_named(small, option):
    done = small.run("python", "-m", "stages.prune", *option, code=1, fork=False)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_parameters_that_change_during_training_are_not_recorded(small):
    """DVC reads params.yaml when a stage ends; the file is changed while the process is training."""
    small.set_params(train__epochs=100, train__seed=6)
    (before,) = stored(small)
    process = small.start("python", "-m", "dvc", "repro", "train")
    first_epoch_of_a_new_run(small, before)
    small.set_params(train__seed=7)
    assert process.poll() is None
    errors = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    assert "error: params.yaml was changed while training ran" in errors
    assert "Traceback" not in errors
    (run,) = stored(small) - {before}
    assert len(list((small.root / STORE / run).iterdir())) == 100  # nothing is lost
