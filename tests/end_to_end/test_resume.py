"""The same bytes every time: killed, resumed, extended, damaged, out of space, run twice at once."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from tests.end_to_end.cluster_support import EPOCHS, wait_for_epochs
from tests.support import Project, outputs, trained, without_training


def untrained_copy(finished: Project, root: Path, **changes) -> Project:
    """A copy of a project in which nothing is trained yet."""
    shutil.copytree(finished.root, root, symlinks=True, dirs_exist_ok=True)
    project = Project(root, **changes)
    without_training(project)
    return project


def kill_and_resume(one_process, root: Path, epochs: int, delay: float, how: signal.Signals) -> int:
    """Kill the training of a fresh run, then let `dvc repro` go on.

    The kill comes `delay` seconds after checkpoint number `epochs` appeared, or after the start where
    that is 0. Returns how many epochs were kept. Fails unless every output is that of the undisturbed
    run.
    """
    original = one_process
    project = untrained_copy(original, root)
    store = root / ".dvc/cache/checkpoints"
    process = project.start("python", "-m", "stages.train", fork=False)
    while epochs and process.poll() is None and not list(store.glob(f"*/epoch-{epochs - 1:03d}.npz")):
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    if how == signal.SIGINT and "Traceback" in said:  # before main() there is nobody to catch it
        assert "KeyboardInterrupt" in said
    kept = len(list(store.glob("*/epoch-*.npz")))
    assert kept >= epochs
    done = project.dvc("repro", "train")
    if kept:
        assert f"{kept} of {EPOCHS} epochs were computed before" in done.stdout
        assert "warning" not in done.stderr
    assert trained(root) == trained(original.root)
    locks = [yaml.safe_load((p / "dvc.lock").read_text())["stages"]["train"] for p in (root, original.root)]
    assert locks[0] == locks[1]
    shutil.rmtree(root)
    return kept


def kills(one_process, tmp_path, count: int, signals: list[signal.Signals]) -> None:
    """Kill `count` runs, two at a time, at random moments spread over the life of a training.

    Every fourth while it starts, by the clock; the others after a random epoch and up to two epochs'
    time later, so that many fall into the writing of a checkpoint, however busy the machine is.
    """
    began = time.monotonic()
    untrained_copy(one_process, tmp_path / "timed").run("python", "-m", "stages.train", fork=False)
    seconds = time.monotonic() - began
    rng = random.Random(0)
    moments = [
        (0, rng.uniform(0, seconds / 2)) if i % 4 == 0 else (rng.randrange(1, EPOCHS), rng.uniform(0, 0.08))
        for i in range(count)
    ]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(kill_and_resume, one_process, tmp_path / str(i), *moment, signals[i % len(signals)])
            for i, moment in enumerate(moments)
        ]
        kept = [run.result() for run in runs]
    print(f"{count} of {count} identical; epochs kept: {kept}")
    assert sum(0 < k < EPOCHS for k in kept) >= count / 2  # not all before the first or after the last


@pytest.mark.long
def test_four_kills(one_process, tmp_path):
    kills(one_process, tmp_path, 4, [signal.SIGKILL])


@pytest.mark.long
def test_twenty_kills(one_process, tmp_path):
    kills(one_process, tmp_path, 20, [signal.SIGKILL])


@pytest.mark.long
def test_a_hundred_kills(one_process, tmp_path):
    kills(one_process, tmp_path, 100, [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])


def test_a_killed_dvc_leaves_nothing_in_the_way(one_process, tmp_path):
    """Killed inside a pass over the text, which takes more than one epoch."""
    steps, batch_size = 5, 128
    changes = {"train__steps_per_epoch": steps, "train__batch_size": batch_size}
    original = untrained_copy(one_process, tmp_path / "original", **changes)
    original.run("python", "-m", "stages.train")
    project = untrained_copy(one_process, tmp_path / "project", **changes)
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "train"],
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for_epochs(project, 1)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)  # DVC, the shell it starts and the stage
    process.wait()
    kept = len(list(project.root.glob(".dvc/cache/checkpoints/*/epoch-*.npz")))
    assert 1 <= kept < EPOCHS
    with np.load(project.root / "data/windows.npz") as windows:
        whole_pass, epoch = len(windows["y"]), steps * batch_size
    assert epoch < whole_pass
    assert kept * epoch % whole_pass != 0
    done = project.dvc("repro", "train")
    assert f"{kept} of {EPOCHS} epochs were computed before" in done.stdout
    assert trained(project.root) == trained(original.root)


def test_a_damaged_checkpoint_is_named_and_computed_again(one_process, tmp_path):
    original = one_process
    root = tmp_path / "project"
    shutil.copytree(original.root, root, symlinks=True)
    project = Project(root)
    (store,) = (root / ".dvc/cache/checkpoints").iterdir()
    path = store / "epoch-037.npz"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    done = project.run("python", "-m", "stages.train")
    assert f"warning: checkpoint {path} is not used: " in done.stderr
    assert f"37 of {EPOCHS} epochs were computed before" in done.stdout
    assert trained(root) == trained(original.root)
    assert path.read_bytes() == content


def test_another_sample_seed_gives_other_samples_of_the_same_model(small):
    before = outputs(small.root)
    small.set_params(sample__seed=1)
    small.run("python", "-m", "stages.sample")
    after = outputs(small.root)
    assert after["models/model.keras"] == before["models/model.keras"]
    assert after["metrics/samples.jsonl"] != before["metrics/samples.jsonl"]


def test_experiments_beside_the_workspace_extend_it(small):
    before = outputs(small.root)
    small.dvc("exp", "run", "--queue", "-S", "train.epochs=5", "--name", "queue-five", "train")
    small.dvc("queue", "start")
    store, deadline = small.root / ".dvc/cache/checkpoints", time.monotonic() + 60
    while time.monotonic() < deadline and not list(store.glob("*/epoch-004.npz")):
        time.sleep(0.05)  # `dvc queue status` takes a second of the processor
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = small.dvc("queue", "status").stdout
        if "Success" in status or "Failed" in status:
            break
        time.sleep(1)
    assert "Success" in status, status
    assert "2 of 5 epochs were computed before" in small.dvc("queue", "logs", "queue-five").stdout
    small.dvc("queue", "stop")

    small.dvc("exp", "apply", "queue-five")
    after = outputs(small.root)
    checkpoints = [f"models/checkpoints/epoch-{epoch:03d}.npz" for epoch in range(5)]
    assert [name in before for name in checkpoints] == [True, True, False, False, False]
    assert all(after[name] == before[name] for name in checkpoints[:2])
    assert all(name in after for name in checkpoints)
    assert after["models/model.keras"] != before["models/model.keras"]


@contextlib.contextmanager
def mounted(folder: Path, *options: str):
    """A small file system of its own at `folder`, or skip where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system takes root on Linux")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_nothing_that_was_computed(one_process, tmp_path):
    """The disk of the checkpoint store, then that of the models."""
    project = untrained_copy(one_process, tmp_path / "project")
    for where in (".dvc/cache/checkpoints", "models"):
        folder = project.root / where
        kept = {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}
        with mounted(folder, "-o", "size=200k,nr_inodes=1000"):
            done = project.run("python", "-m", "stages.train", code=1)
        assert "computed before" not in done.stdout  # what the first one computed went with the small disk
        line = done.stderr.splitlines()[-1]
        assert line.startswith("error: ")
        assert "No space left on device; free some space, then `dvc repro` resumes" in line
        assert "Traceback" not in done.stderr
        assert {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()} == kept
    done = project.dvc("repro", "train")
    assert "epochs were computed before" in done.stdout
    assert trained(project.root) == trained(one_process.root)


def test_a_read_only_folder_is_named(one_process, tmp_path):
    original = one_process
    project = untrained_copy(original, tmp_path / "project")
    with mounted(project.root / "models", "-o", "ro"):
        done = project.run("python", "-m", "stages.train", code=1)
    assert done.stderr.startswith("error: models/vocabulary.json: Read-only file system; make it writable")
    assert done.stderr.count("\n") == 1


def test_two_at_once_do_no_damage(one_process, tmp_path):
    original = one_process
    project = untrained_copy(original, tmp_path / "project")
    first = project.start("python", "-m", "dvc", "repro", "train", fork=False)
    wait_for_epochs(project, 1)
    training = psutil.Process(first.pid).children(recursive=True)
    for process in training:
        process.suspend()  # so that it trains until the second has given up
    second = project.dvc("repro", "train", code=None)
    assert first.poll() is None
    assert 1 <= len(list(project.root.glob(".dvc/cache/checkpoints/*/epoch-*.npz"))) < EPOCHS
    for process in training:
        process.resume()
    said = first.communicate(timeout=120)
    assert first.returncode == 0, said
    assert second.returncode != 0
    assert "lock" in second.stderr.lower() or "is busy" in second.stderr
    assert trained(project.root) == trained(original.root)
    assert project.dvc("status", "train").stdout.strip() == "Data and pipelines are up to date."


@pytest.mark.skipif(not shutil.which("taskset"), reason="taskset is Linux's")
def test_one_core_and_all_give_the_same_lock(small, tmp_path):
    """Every stage up to the samples anew on one core: their bytes too, not only the model's."""
    pinned = tmp_path / "pinned"
    shutil.copytree(small.root, pinned, symlinks=True)
    shutil.rmtree(pinned / ".dvc/cache")
    core = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, "python", "-m", "dvc", "repro", "--force", "sample"]
    done = Project(pinned).run(*command)  # a fork has the cores of the command
    assert "were computed before" not in done.stdout
    assert outputs(pinned) == outputs(small.root)
    assert (pinned / "dvc.lock").read_bytes() == (small.root / "dvc.lock").read_bytes()
