"""What of a machine chooses among numeric kernels: its processor or GPUs, and environment variables.

Other kernels add in another order, so the last bits of a weight depend on these.
"""

import contextlib
import ctypes
import os
import platform
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import tensorflow as tf

# TensorFlow's, oneDNN's, XLA's and NVIDIA's switches; TF_CPP_*, TF_CONFIG and Terraform's TF_* are none
SWITCHES = re.compile(
    r"(TF_(AUTO|CONV|CUBLAS|CUDA|CUDNN|DETERMINISTIC|DISABLE|ENABLE|MATMUL|MKL|NUM|ONEDNN|OVERRIDE|SET|USE|XLA)"
    r"|XLA_|ONEDNN_|DNNL_|CUDNN_(?!LOG)|CUBLAS_(?!LOG)|NCCL_(?!DEBUG)|NVIDIA_TF32)"
)
CPUINFO = Path("/proc/cpuinfo")
# the processor's maker and model on x86-64 and on Arm, and the instructions that kernels are chosen by
MODEL = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU variant", "CPU part")
INSTRUCTIONS = re.compile(r"(s?sse|avx|amx|fma|f16c|asimd|sve|sme|bf16|i8mm|fphp)")


def kernel_switches() -> dict[str, str]:
    """Collect the environment variables that choose among kernels."""
    return {name: value for name, value in sorted(os.environ.items()) if SWITCHES.match(name)}


def processor(cpuinfo: Path = CPUINFO) -> str:
    """Describe the processor as far as it chooses among kernels.

    Args:
        cpuinfo: Linux's description of the processors.

    Returns:
        On Linux the maker, the model and the vector instructions; elsewhere the processor's name.
    """
    if not cpuinfo.is_file():
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return platform.processor()
    first = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":")[::2] for line in first.splitlines())
    about = {name.strip(): value.strip() for name, value in pairs}
    instructions = about.get("flags", about.get("Features", "")).split()
    return " ".join(
        [about[name] for name in MODEL if name in about] + sorted(filter(INSTRUCTIONS.match, instructions))
    )


def gpus() -> str:
    """Describe the GPUs that TensorFlow uses: number, name, compute capability; the versions of software."""
    kinds = Counter(f"{name} {capability}" for name, capability in _names_and_capabilities())
    each = [f"{count} × {kind}" for kind, count in kinds.items()]
    return ", ".join(each + [f"{name} {version}" for name, version in versions().items()])


def _names_and_capabilities() -> list[tuple[str, str]]:
    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    return [
        (gpu.get("device_name", "GPU"), ".".join(map(str, gpu.get("compute_capability", ()))))
        for gpu in details
    ]


def versions() -> dict[str, str]:
    """Ask the libraries that TensorFlow has loaded for their versions.

    Returns:
        By the names cuDNN, CUDA, driver, cuBLAS and NCCL. Where cuDNN or CUDA does not answer, the version
        that TensorFlow was built for. The driver's version is that of the newest CUDA that it supports.
    """
    built = tf.sysconfig.get_build_info()
    cudnn, cuda = built.get("cudnn_version", "unknown"), built.get("cuda_version", "unknown")
    major = cuda.split(".")[0]
    return {
        "cuDNN": _cudnn_version(f"libcudnn.so.{cudnn}") or cudnn,
        "CUDA": _version_of(f"libcudart.so.{major}", "cudaRuntimeGetVersion") or cuda,
        "driver": _version_of("libcuda.so.1", "cuDriverGetVersion") or "unknown",
        "cuBLAS": _cublas_version(f"libcublas.so.{major}") or "unknown",
        "NCCL": _version_of("libnccl.so.2", "ncclGetVersion", 10_000, 100) or "unknown",
    }


def _cudnn_version(library: str) -> str:
    with contextlib.suppress(OSError, AttributeError):
        ask = ctypes.CDLL(library).cudnnGetVersion
        ask.restype = ctypes.c_size_t
        version: int = ask()
        thousands = 10_000 if version >= 90_000 else 1_000  # of the major version, as of cuDNN 9
        return f"{version // thousands}.{version % thousands // 100}.{version % 100}"
    return ""


def _version_of(library: str, function: str, major: int = 1000, minor: int = 10) -> str:
    with contextlib.suppress(OSError, AttributeError):
        version = ctypes.c_int()
        if getattr(ctypes.CDLL(library), function)(ctypes.byref(version)) == 0:
            return f"{version.value // major}.{version.value % major // minor}"
    return ""


def _cublas_version(library: str) -> str:
    with contextlib.suppress(OSError, AttributeError):
        parts = [ctypes.c_int() for _ in ("major", "minor", "patch")]
        for number, part in enumerate(parts):
            ctypes.CDLL(library).cublasGetProperty(number, ctypes.byref(part))
        return ".".join(str(part.value) for part in parts)
    return ""


def gpu_memory() -> int | None:
    """Ask the driver for the memory, in bytes, of the smallest GPU that TensorFlow uses; None if unknown."""
    sizes = []
    with contextlib.suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        for gpu in tf.config.get_visible_devices("GPU"):
            handle, size = ctypes.c_int(), ctypes.c_size_t()
            number = int(gpu.name.rpartition(":")[2])  # TensorFlow counts them as the driver does
            if driver.cuDeviceGet(ctypes.byref(handle), number):
                return None
            if driver.cuDeviceTotalMem_v2(ctypes.byref(size), handle):
                return None
            sizes.append(size.value)
    return min(sizes, default=None)


def device_facts(device: str, precision: str, no_gpu: str | None = None) -> dict[str, Any]:
    """Collect what `metrics/train/device.json` says of the device, the same in each run on one machine.

    Args:
        device: cpu or gpu, as it was set up.
        precision: `train.precision`.
        no_gpu: why there is no GPU; None where none was looked for.

    Returns:
        A tree for JSON. The memory is that of the smallest GPU, in bytes. A GPU is reproducible
        unless its first steps say otherwise.
    """
    on_gpu = device == "gpu"
    of = versions() if on_gpu else {}
    names = [name for name, _ in _names_and_capabilities()] if on_gpu else []
    return {
        "device": device,
        "names": names,
        "gpus": len(names),
        "memory": gpu_memory() if on_gpu else None,
        **{name.lower(): of.get(name) for name in ("cuDNN", "CUDA", "driver")},
        "precision": precision,
        "no_gpu": None if on_gpu else no_gpu,
        "reproducible": True,
    }
