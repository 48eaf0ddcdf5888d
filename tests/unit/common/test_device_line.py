"""The line that names the device."""

import pytest

from stages.common.device_line import device_line

CPU = {"device": "cpu", "names": [], "gpus": 0, "memory": None, "precision": "float32", "no_gpu": None}
CPU |= {"reproducible": True}
GPU = {
    "device": "gpu",
    "names": ["NVIDIA H100 80GB HBM3"],
    "gpus": 1,
    "memory": 85029158912,
    "cudnn": "9.3.0",
    "cuda": "12.5",
    "driver": "12.9",
    "precision": "float32",
    "no_gpu": None,
    "reproducible": True,
}


@pytest.mark.parametrize(
    ("facts", "cores", "line"),
    [
        (GPU, None, "NVIDIA H100 80GB HBM3, 79 GiB, cuDNN 9.3.0, CUDA 12.5, float32"),
        (GPU, 16, "NVIDIA H100 80GB HBM3, 79 GiB, cuDNN 9.3.0, CUDA 12.5, float32"),
        (
            GPU | {"names": ["A", "B", "A"], "gpus": 3, "precision": "tf32"},
            *(None, "2 × A, B, 79 GiB each, cuDNN 9.3.0, CUDA 12.5, tf32"),
        ),
        (GPU | {"memory": None}, None, "NVIDIA H100 80GB HBM3, cuDNN 9.3.0, CUDA 12.5, float32"),
        (
            GPU | {"memory": None, "reproducible": False},
            *(None, "NVIDIA H100 80GB HBM3, cuDNN 9.3.0, CUDA 12.5, float32; not reproducible"),
        ),
        (CPU, 2, "CPU, 2 cores, float32"),
        (CPU, 1, "CPU, 1 core, float32"),
        (CPU | {"no_gpu": "no driver"}, 2, "CPU, 2 cores, float32; no GPU: no driver"),
        (CPU | {"no_gpu": "no driver"}, None, "CPU, float32; no GPU: no driver"),
    ],
)
def test_lines(facts, cores, line):
    assert device_line(facts, cores) == line
