"""The same bytes on a GPU: twice, killed and resumed, two at once; and the samples of its model."""

import json
import signal
import time

import pytest

from tests.gpu.gpu_support import (
    about_the_device,
    losses,
    memory_of_the_card,
    same_weights,
    trained,
    training,
    untrained,
)
from tests.support import outputs
from tests.support import trained as outputs_of_training

EPOCHS = 40  # after the kill there have to be some left


def skip_unless_reproducible(project) -> None:
    """The train stage itself tries its first step twice on a GPU."""
    if about_the_device(project).get("reproducible") is False:
        pytest.skip("metrics/train/device.json says `reproducible: false`: this GPU rounds anew in every run")


def wait_for_epochs(project, process, epochs: int) -> None:
    """Wait until that many checkpoints are in the store, of a training that is still under way."""
    deadline = time.monotonic() + 240
    while len(list(project.root.glob(".dvc/cache/checkpoints/*/epoch-*.npz"))) < epochs:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert process.poll() is None


def test_two_runs_have_the_same_bytes(device, plain, tmp_path):
    skip_unless_reproducible(plain)
    again = trained(tmp_path / "again", device.name)
    assert outputs_of_training(again.root) == outputs_of_training(plain.root)


def test_a_killed_run_resumes_to_the_same_bytes(device, plain, tmp_path):
    skip_unless_reproducible(plain)
    undisturbed = trained(tmp_path / "undisturbed", device.name, train__epochs=EPOCHS)
    killed = untrained(tmp_path / "killed", device.name, train__epochs=EPOCHS)
    with training(killed) as process:
        wait_for_epochs(killed, process, 3)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = len(list(killed.root.glob(".dvc/cache/checkpoints/*/epoch-*.npz")))
    assert 3 <= kept < EPOCHS
    done = killed.run("python", "-m", "stages.train")
    assert f"{kept} of {EPOCHS} epochs were computed before" in done.stdout
    assert outputs_of_training(killed.root) == outputs_of_training(undisturbed.root)


def test_two_at_once_share_the_gpu(device, tmp_path):
    """Each takes the memory that it needs, not the whole card; and neither disturbs the other's numbers."""
    projects = [untrained(tmp_path / str(n), device.name, train__epochs=EPOCHS) for n in (0, 1)]
    before, total = memory_of_the_card(device)
    with training(projects[0]) as first, training(projects[1]) as second:
        wait_for_epochs(projects[0], first, 1)
        wait_for_epochs(projects[1], second, 1)
        during, _ = memory_of_the_card(device)
        assert first.poll() is None  # both train at this moment
        assert during - before < total / 2  # as it comes TensorFlow takes nearly all
        said = [process.communicate(timeout=300)[0] for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], said
    mine, other = map(losses, projects)
    assert mine == pytest.approx(other, rel=0, abs=5e-4)
    if about_the_device(projects[0]).get("reproducible") is not False:
        assert same_weights(*projects)


def test_samples_of_the_gpu_s_model_are_the_same_without_the_gpu(device, plain):
    """The stage `sample` computes on the CPU, so a GPU beside it changes no character, at any temperature."""
    plain.run("python", "-m", "stages.sample")
    samples = [json.loads(line) for line in plain.read("metrics/samples.jsonl").splitlines()]
    assert [(s["epoch"], s["temperature"]) for s in samples] == [
        (epoch, temperature) for epoch in range(3) for temperature in (0.0, 0.5, 1.0)
    ]
    vocabulary = set(json.loads(plain.read("models/vocabulary.json"))["vocabulary"])
    assert all(len(s["text"]) == 20 and set(s["text"]) <= vocabulary for s in samples)
    beside_the_gpu = outputs(plain.root)
    plain.run("python", "-m", "stages.sample", CUDA_VISIBLE_DEVICES="-1")
    assert outputs(plain.root) == beside_the_gpu


def test_the_preview_of_training_on_the_gpu_is_the_sample_without_it(device, tmp_path):
    """Same weights, same draws, computed on the CPU by both."""
    project = untrained(tmp_path, device.name, train__preview=20)
    said = project.run("python", "-m", "stages.train").stdout.splitlines()
    assert not [line for line in said if line.startswith("without cuDNN")]  # on a GPU it computes the LSTM
    previews = [said[n + 1][2:] for n, line in enumerate(said) if line.startswith("epoch ")]
    project.run("python", "-m", "stages.sample", CUDA_VISIBLE_DEVICES="-1")
    lines = map(json.loads, project.read("metrics/samples.jsonl").splitlines())
    samples = [line["text"] for line in lines if line["temperature"] == 0.5]
    assert len(samples) == 3
    assert previews == samples
