"""CUDA's libraries: one that TensorFlow does not find by itself, and why it sees no GPU."""

import contextlib
import ctypes
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path


def load_cusolver() -> list[str]:
    """Load cuSOLVER from its package, where there is a driver; return the paths of what was loaded.

    TensorFlow 2.21 looks for its libraries in the packages that belong to it, but not in cuSOLVER's, and
    without cuSOLVER it registers no GPU. A library that is loaded already is found by its name.
    """
    found = importlib.util.find_spec("tensorflow")
    packages = Path(found.origin).parents[1] if found and found.origin else Path()
    loaded = []
    with contextlib.suppress(OSError):  # no driver, or a library that cuSOLVER needs is missing
        ctypes.CDLL("libcuda.so.1")
        for path in map(str, packages.glob("nvidia/cusolver/lib/libcusolver.so.*")):
            ctypes.CDLL(path)
            loaded.append(path)
    return loaded


def why_no_gpu(cusolver: list[str]) -> str:
    """Say why TensorFlow lists no GPU, the same whatever the logging level is.

    Args:
        cusolver: what `load_cusolver` returned.

    Returns:
        One line.
    """
    import tensorflow as tf

    if not tf.sysconfig.get_build_info().get("is_cuda_build"):
        return "this TensorFlow is built without CUDA"
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if chosen is None else f"; CUDA_VISIBLE_DEVICES is {chosen!r}"
    text, count = ctypes.c_char_p(), ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if code := driver.cuInit(0):
            driver.cuGetErrorString(code, ctypes.byref(text))
            return f"the NVIDIA driver answers: {(text.value or b'an error').decode()} ({code}){hidden}"
        if driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value == 0:
            return f"the NVIDIA driver lists no GPU{hidden}"
    except (OSError, AttributeError) as error:
        return f"no NVIDIA driver ({' '.join(str(error).split())})"
    # TensorFlow reads its logging level once, so that another process has to list them
    listing = (
        "import ctypes, sys, tensorflow; list(map(ctypes.CDLL, sys.argv[1:]))\n"
        "tensorflow.config.list_physical_devices('GPU')"
    )
    levels = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
    done = subprocess.run(
        [sys.executable, "-c", listing, *cusolver],
        env={**os.environ, **levels},
        capture_output=True,
        text=True,
        errors="replace",
    )
    return reason_in(done.stderr) + hidden


def reason_in(report: str) -> str:
    """Find in TensorFlow's messages why it registers no GPU.

    Args:
        report: what a process that lists GPUs wrote to stderr, with the messages of its library loader.

    Returns:
        One line: the libraries that cannot be loaded, or the GPUs that TensorFlow ignores.
    """
    libraries: dict[str, list[str]] = {}
    missing = r"Could not load dynamic library '([^']+)'; dlerror: (.*?)(?:; LD_LIBRARY_PATH: .*)?$"
    for library, error in re.findall(missing, report, re.MULTILINE):
        named = libraries.setdefault(error.removeprefix(f"{library}: "), [])
        named += [library] * (library not in named)
    reasons = [f"{', '.join(named)} cannot be loaded ({error})" for error, named in libraries.items()]
    reasons += dict.fromkeys(re.findall(r"\] (Ignoring visible gpu device .*?)\.?$", report, re.MULTILINE))
    return "; ".join(reasons) or "TensorFlow does not say why"
