"""Set-up of TensorFlow: the device, deterministic operations, one thread per operation."""

import contextlib
import ctypes
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stages.common.errors import StageError

# a process of its own, since C++ code that aborts leaves no time to show what was held back
GUARD = r"""
import os, re, sys
if not sys.stdin.read(1):
    held = os.pread(1, 1 << 20, 0)
    os.write(2, re.sub(rb"(?m)^(I\d{4} |WARNING: All log messages before ).*\n", b"", held))
"""


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr; show it only if the block fails or the process dies in it.

    TensorFlow reports on its build and on missing GPUs there, whatever the logging level.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        command = [sys.executable, "-I", "-S", "-c", GUARD]
        guard = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=held,
            start_new_session=True,  # Ctrl-C is for this process only
        )
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            guard.communicate(b".")  # whatever is to be shown is shown


def _load_cusolver() -> list[str]:
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


# part of what the numbers depend on, so it is the same on every machine
PINNED = {
    "KERAS_BACKEND": "tensorflow",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # only with it cuBLAS promises equal bits where its routines run side by side:
    # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
for name, value in PINNED.items():
    if os.environ.get(name, value) != value:
        print(
            f"warning: {name}={os.environ[name]} is ignored: the pipeline sets it to {value}, since the last "
            "bits of every weight depend on it",
            file=sys.stderr,
        )
    os.environ[name] = value
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only: the rest is about the build
with _quiet_stderr():
    import keras
    import tensorflow as tf  # reads these variables

    CUSOLVER = _load_cusolver()
    GPUS = tf.config.list_physical_devices("GPU")
# a user's ~/.keras/keras.json may have other values
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")


def set_up_tensorflow(
    device: str, cores: int | None = None, precision: str = "float32", share: tuple[int, int] = (0, 1)
) -> str:
    """Choose the device and make TensorFlow deterministic. Call it before anything is computed.

    Every operation runs on one thread, and as many operations run side by side as there are cores to use.
    So what is added to what does not depend on the number of cores.

    Args:
        device: auto, cpu or gpu.
        cores: how many to use at most; None for all that this process may run on.
        precision: with tf32, GPUs multiply float32 in TF32, which TensorFlow by itself always does.
        share: this process, counted from 0, among those on this host that share out its GPUs, and their
            number. Each gets equally many; what is left over is not used.

    Returns:
        cpu or gpu.

    Raises:
        StageError: gpu was asked for and there is none, or there are more processes than GPUs.
    """
    if device == "gpu" and not GPUS:
        raise StageError(
            f"train.device: got 'gpu', but TensorFlow sees no GPU here: {why_no_gpu()}; takes auto or cpu, "
            "or a GPU with the packages of requirements/gpu.txt"
        )
    chosen = "gpu" if GPUS and device != "cpu" else "cpu"
    index, processes = share
    each = len(GPUS) // processes
    if chosen == "gpu" and not each:
        number = f"{len(GPUS)} GPU{'s' * (len(GPUS) > 1)}"
        raise StageError(
            f"train.workers: got {processes} processes on this host, which has {number}; takes at most one "
            "process for each GPU, also in TF_CONFIG, or train.device: cpu"
        )
    visible = GPUS[index * each : (index + 1) * each] if chosen == "gpu" else []
    tf.config.set_visible_devices(visible, "GPU")
    for gpu in visible:
        tf.config.experimental.set_memory_growth(gpu, True)  # or one process would take all of its memory
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(min(cores or usable_cores(), usable_cores()))
    tf.config.experimental.enable_op_determinism()
    return chosen


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def why_no_gpu() -> str:
    """Say why TensorFlow lists no GPU, the same whatever the logging level is."""
    if not tf.sysconfig.get_build_info().get("is_cuda_build"):
        return "this TensorFlow is built without CUDA"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver ({error})"
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if chosen is None else f"; CUDA_VISIBLE_DEVICES is {chosen!r}"
    if code := driver.cuInit(0):
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        return f"the NVIDIA driver answers: {(text.value or b'an error').decode()} ({code}){hidden}"
    # TensorFlow reads its logging level once, so that another process has to list them
    listing = (
        "import ctypes, sys, tensorflow; list(map(ctypes.CDLL, sys.argv[1:]))\n"
        "tensorflow.config.list_physical_devices('GPU')"
    )
    levels = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
    done = subprocess.run(
        [sys.executable, "-c", listing, *CUSOLVER],
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
