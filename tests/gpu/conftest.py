"""The device of these tests: a GPU, or they are skipped; `CHAR_LSTM_GPU_TESTS_ON=cpu` rehearses on a CPU."""

import os
from pathlib import Path

import pytest

from tests.gpu.gpu_support import Device, Gpus, find_gpus, trained
from tests.support import Project, made_once

ON = os.environ.get("CHAR_LSTM_GPU_TESTS_ON", "gpu")


@pytest.fixture(scope="session", autouse=True)
def device() -> Device:
    """The device that every test here runs on; all are skipped where there is no GPU."""
    if ON not in ("gpu", "cpu"):
        pytest.fail(f"CHAR_LSTM_GPU_TESTS_ON: got {ON!r}; takes cpu, or gpu as without it", pytrace=False)
    gpus = Gpus([]) if ON == "cpu" else find_gpus()
    if gpus.reason:
        pytest.skip(gpus.reason)
    return Device(ON, gpus)


@pytest.fixture(scope="session")
def plain(device, tmp_path_factory) -> Project:
    """A model of the article's kind, trained on the device in float32."""

    def make(root: Path) -> None:
        trained(root, device.name)

    return Project(made_once(tmp_path_factory, "gpu-plain", make))
