"""What the tests and the benchmark of a GPU share: which GPUs there are, and projects that train on one."""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.support import DRIVER, ROOT, Project, copy_of_the_project, make_text

ASK_TENSORFLOW = """
import json
import stages.training.device
import tensorflow as tf
seen = tf.config.list_physical_devices("GPU")
print(json.dumps([tf.config.experimental.get_device_details(gpu) for gpu in seen]))
"""


class Gpus(NamedTuple):
    """What TensorFlow says of each GPU that it sees, and why there is none."""

    details: list[dict[str, Any]]
    reason: str = ""

    def capability(self) -> tuple[int, ...]:
        """The lowest compute capability of all."""
        return min(tuple(each["compute_capability"]) for each in self.details)


def find_gpus() -> Gpus:
    """Ask TensorFlow in a process of its own; where there is no trace of a driver, do not start it."""
    if not DRIVER:
        return Gpus([], "no GPU: there is no NVIDIA driver here, neither nvidia-smi nor /dev/nvidia0")
    done = subprocess.run(
        [sys.executable, "-c", ASK_TENSORFLOW], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        said = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
        return Gpus([], f"no GPU: TensorFlow does not start: {said}")
    details = json.loads(done.stdout.splitlines()[-1])
    if not details:
        return Gpus([], "no GPU: there is a driver, but TensorFlow sees no GPU (docs/gpu.md#known-trouble)")
    return Gpus(details)


def first_gpu() -> str:
    """What `CUDA_VISIBLE_DEVICES` has to be so that a process sees the first GPU alone."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def smi(query: str, *options: str) -> list[str]:
    """The command that asks NVIDIA's driver about the card that is used."""
    return [
        "nvidia-smi",
        "-i",
        first_gpu(),
        f"--query-gpu={query}",
        "--format=csv,noheader,nounits",
        *options,
    ]


class Device(NamedTuple):
    """What the tests run on: the GPU, or the CPU in a rehearsal."""

    name: str
    gpus: Gpus

    @property
    def rehearsal(self) -> bool:
        """Whether the CPU stands in for the GPU."""
        return self.name == "cpu"


def memory_of_the_card(device: Device) -> tuple[int, int]:
    """MiB of the first GPU's memory that are used, and all; (0, 1) where nobody can be asked."""
    if device.rehearsal or not shutil.which("nvidia-smi"):
        return 0, 1
    done = subprocess.run(smi("memory.used,memory.total"), capture_output=True, text=True, check=True)
    used, total = done.stdout.split(",")
    return int(used), int(total)


SETTINGS = {
    "download__corpus": "corpora/book.txt",
    "download__offline_corpus": None,
    "vectorize__maxlen": 12,
    "model__units": 32,
    "train__epochs": 3,
    "train__batch_size": 128,
    "train__preview": 0,
    "sample__length": 20,
    "sample__temperatures": [0.0, 0.5, 1.0],
}


def untrained(root: Path, device: str, all_gpus: bool = False, **changes: Any) -> Project:
    """A project with windows of a made-up text, to train on a device; on one GPU unless it is told else."""
    copy_of_the_project(root)
    (root / "corpora/book.txt").write_text(make_text(9000), encoding="utf-8")
    project = Project(root, **SETTINGS | changes | {"train__device": device})
    if not all_gpus:
        project.environment["CUDA_VISIBLE_DEVICES"] = first_gpu()
    project.run("git", "init", "-q")
    for stage in ("download", "vectorize"):
        project.run("python", "-m", f"stages.{stage}")
    return project


def trained(root: Path, device: str, all_gpus: bool = False, **changes: Any) -> Project:
    """The same, after its training."""
    project = untrained(root, device, all_gpus, **changes)
    project.run("python", "-m", "stages.train")
    return project


@contextlib.contextmanager
def training(project: Project) -> Iterator[subprocess.Popen]:
    """The training of a project as a process under way; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def losses(project: Project) -> dict[tuple[str, str], float]:
    """The loss of each epoch and part (training, validation ...)."""
    rows = csv.DictReader(io.StringIO(project.read("metrics/train/losses.tsv").decode()), delimiter="\t")
    return {(row["epoch"], row["part"]): float(row["loss"]) for row in rows}


def weights(project: Project) -> list[np.ndarray]:
    """The weights after the last epoch, out of its checkpoint."""
    path = max((project.root / "models/checkpoints").glob("*.npz"))
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in sorted(file.files) if name.startswith("weights_")]


def same_weights(one: Project, other: Project) -> bool:
    """Whether two projects have the same weights, to the last bit."""
    pairs = zip(weights(one), weights(other), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def about_the_device(project: Project) -> dict[str, Any]:
    """What the train stage wrote about the device."""
    return json.loads(project.read("metrics/train/device.json"))
