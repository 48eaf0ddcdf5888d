"""What the tests of several processes share: a reference run, copies of it, processes that are watched."""

import contextlib
import shutil
import time
from pathlib import Path

import psutil
import pytest

from tests.support import Project, made_once, without_training

EPOCHS = 40


TIMEOUT = 8  # seconds, train.worker_timeout where a test waits for it


def nobody_is_left(*roots: Path) -> bool:
    """Whether no process works in these folders any more, within a few seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(Path(process.cwd()).is_relative_to(root) for root in roots):
                    left.append(process)
        if not left:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="session")
def one_process(finished, tmp_path_factory) -> Project:
    """The small project after `EPOCHS` epochs in one process."""

    def make(root: Path) -> None:
        shutil.copytree(finished.root, root, symlinks=True, dirs_exist_ok=True)
        # each position of each microbatch is compiled; three are shared out unevenly by two workers
        project = Project(root, vectorize__maxlen=6, train__microbatches=3)
        project.set_params(train__epochs=EPOCHS, train__worker_timeout=TIMEOUT)
        without_training(project)
        project.dvc("repro", "train")

    return Project(made_once(tmp_path_factory, "one-process", make))


@pytest.fixture
def untrained(one_process, tmp_path) -> Project:
    """A copy of it in which nothing is trained yet."""
    root = tmp_path / "project"
    shutil.copytree(one_process.root, root, symlinks=True)
    project = Project(root)
    without_training(project)
    return project


@pytest.fixture
def host(untrained, tmp_path) -> Project:
    """Another host's clone: the same code and windows, nothing else."""
    root = tmp_path / "host"
    for name in ("stages", "data"):
        shutil.copytree(untrained.root / name, root / name)
    shutil.copy(untrained.root / "params.yaml", root)
    return Project(root)


def wait_for_epochs(project: Project, epochs: int) -> None:
    """Wait until that many checkpoints of a training are in the store."""
    deadline = time.monotonic() + 60
    store = project.root / ".dvc/cache/checkpoints"
    while len(list(store.glob("*/epoch-*.npz"))) < epochs:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_one_line(process, line: str, code: int, others: bool = False) -> None:
    """The process ends by itself within the time-out, with the line on stderr and no traceback."""
    _, errors = process.communicate(timeout=TIMEOUT + 22)
    assert process.returncode == (255 if others else code), errors  # 255: of DVC, whose stage ended
    assert "Traceback" not in errors
    found = [text for text in errors.splitlines() if text.startswith("error: ")]
    assert len(found) == 1, errors
    assert found[0].startswith(line)
    if not others:  # DVC says that its stage failed
        assert errors.count("\n") == 1
