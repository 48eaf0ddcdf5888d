"""The checkpoint store: what a changed code computes again, and what is pruned."""

import pytest

from tests.support import Project, outputs

REWORDED = [
    "common/randomness.py",
    "common/params.py",
    "model/fused_lstm.py",
    "training/trainer.py",
    "training/schedule.py",
]


def stored(project: Project) -> set[str]:
    """The runs in the store."""
    return {path.name for path in (project.root / ".dvc/cache/checkpoints").iterdir()}


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
    done = small.dvc("repro")
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
    small.set_params(train__learning_rate=0.03)
    small.dvc("repro", "train")
    (left_behind,) = stored(small) - {branch, experiment}
    small.set_params(train__learning_rate=0.04)
    small.dvc("repro", "train")
    (workspace,) = stored(small) - {branch, experiment, left_behind}

    def prune(*options, code=0):
        return small.run("python", "-m", "stages.prune", *options, code=code)

    assert "0 runs deleted, 0.0 MB; 4 runs kept" in prune().stdout  # all were written today
    done = prune("--days", "0", "--dry-run")
    assert f"{left_behind[:12]}: 2 files" in done.stdout
    assert "1 runs would be deleted" in done.stdout
    assert stored(small) == {branch, experiment, left_behind, workspace}
    assert "1 runs deleted" in prune("--days", "0").stdout
    assert stored(small) == {branch, experiment, workspace}
    small.dvc("exp", "remove", "kept")
    assert "1 runs deleted" in prune("--days", "0").stdout
    assert stored(small) == {branch, workspace}

    for listing in (small.root / ".dvc/cache/files").rglob("*.dir"):
        listing.unlink()
    done = prune("--days", "0", code=1)
    assert done.stderr.startswith("error: Failed to collect")
    assert "DVC's cache lacks a list of files" in done.stderr
    assert done.stderr.count("\n") == 1
    assert stored(small) == {branch, workspace}


@pytest.mark.parametrize("option", [["--days", "-1"], ["--days", "x"], ["--all"]])
def test_a_wrong_option_is_named(small, option):
    done = small.run("python", "-m", "stages.prune", *option, code=1)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
