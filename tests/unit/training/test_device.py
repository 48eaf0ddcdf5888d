"""The set-up of TensorFlow: what is held back, which GPUs a process gets, why there is none.

Most tests put modules of the names keras and tensorflow in front of the real ones: they need no GPU, and
a process that dies during the import.
"""

import os
import shutil
import signal
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from stages.common.errors import StageError
from tests.support import ROOT

TENSORFLOW = """
import os
from types import SimpleNamespace as Namespace
config = Namespace(list_physical_devices=lambda kind: [])
sysconfig = Namespace(get_build_info=lambda: {"is_cuda_build": os.environ.get("BUILD") != "cpu"})
if "dso_loader=1" in os.environ.get("TF_CPP_VMODULE", "") and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0":
    os.write(2, os.environ["REPORT"].encode())
"""
KERAS = """
import os, signal
from types import SimpleNamespace as Namespace
config = Namespace(set_floatx=id, set_epsilon=id, set_image_data_format=id)
"""
HELD = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n"
    "I0000 00:00:1795531719.573872   24965 port.cc:153] oneDNN custom operations are on. You may see\\n"
    "F0000 00:00:1795531720.000000   24965 gpu.cc:1] Check failed: 1 == 2\\nE0000 second line\\n"
)
SHOWN = "F0000 00:00:1795531720.000000   24965 gpu.cc:1] Check failed: 1 == 2\nE0000 second line\n"
MISSING = "cannot open shared object file: No such file or directory"
# as TensorFlow 2.21 wrote them where a library in place of the driver's says that there is a GPU
LOADER = "I0000 00:00:1795531920.242138   25469 dso_loader.cc:1"
NOT_LOADED = (
    f"{LOADER}33] Successfully opened dynamic library libcufft.so.11\n"
    f"{LOADER}44] Could not load dynamic library 'libcudnn.so.9'; dlerror: libcudnn.so.9: {MISSING}; "
    "LD_LIBRARY_PATH: /a:/b\n"
    f"{LOADER}44] Could not load dynamic library 'libcusolver.so.11'; "
    f"dlerror: libnvJitLink.so.12: {MISSING}\n"
    f"{LOADER}44] Could not load dynamic library 'libcudnn.so.9'; dlerror: libcudnn.so.9: {MISSING}; "
    "LD_LIBRARY_PATH: /a:/b\n"
    f"{LOADER}44] Could not load dynamic library 'libcublas.so.12'; dlerror: libcublas.so.12: {MISSING}; "
    "LD_LIBRARY_PATH: \n"
    "W0000 00:00:1795531920.246942   25463 gpu_device.cc:2365] Cannot dlopen some GPU libraries. Please make "
    "sure the missing libraries mentioned above are installed properly if you would like to use GPU. \n"
    "Skipping registering GPU devices...\n"
)
IGNORED = (
    "I0000 00:00:1795532187.455443   26965 gpu_device.cc:2412] Ignoring visible gpu device (device: 0, name: "
    "Tesla K20, pci bus id: 0000:01:00.0, compute capability: 3.0) with Cuda compute capability 3.0. The "
    "minimum required Cuda capability is 3.5.\n"
)
LIBRARIES = (
    f"libcudnn.so.9, libcublas.so.12 cannot be loaded ({MISSING}); "
    f"libcusolver.so.11 cannot be loaded (libnvJitLink.so.12: {MISSING})"
)
OLD_GPU = (
    "Ignoring visible gpu device (device: 0, name: Tesla K20, pci bus id: 0000:01:00.0, compute capability: "
    "3.0) with Cuda compute capability 3.0. The minimum required Cuda capability is 3.5"
)
DRIVER = """
#include <stdlib.h>
int answer(void) { return atoi(getenv("ERROR")); }
int cuInit(unsigned flags) { return answer() > 0 ? answer() : 0; }
int cuDeviceGetCount(int *count) { *count = answer() == 0; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "no CUDA-capable device is detected"; return 0; }
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs code after `import stages.training.device`, with a Keras that runs other code."""
    (tmp_path / "tensorflow.py").write_text(TENSORFLOW)

    def start(code: str, in_keras: str = "", **environment: str) -> subprocess.CompletedProcess:
        (tmp_path / "keras.py").write_text(KERAS + in_keras)
        return subprocess.run(
            [sys.executable, "-c", f"import stages.training.device as device\n{code}"],
            cwd=ROOT,
            env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            timeout=30,
        )

    return start


@pytest.fixture
def driver(tmp_path) -> Path:
    """A folder with a library of the driver's name, which answers with `$ERROR`."""
    compiler = shutil.which("cc")
    if not compiler or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    (tmp_path / "driver.c").write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "driver.c"], check=True)
    return tmp_path


def test_what_is_written_while_tensorflow_is_imported_is_not_shown(run):
    done = run("import os; os.write(2, b'later')", f'os.write(2, b"{HELD}")')
    assert (done.returncode, done.stderr, done.stdout) == (0, "later", "")


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os.abort()", -signal.SIGABRT),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
    ],
)
def test_what_was_held_back_is_shown_where_the_process_dies(run, end, code):
    notices = 'os.write(2, b"I0000 00:00 a notice\\n" * 60_000)'  # more than a MiB
    done = run("print('not reached')", f'{notices}; os.write(2, b"{HELD}"); {end}')
    assert (done.returncode, done.stderr, done.stdout) == (code, SHOWN, "")


def test_a_process_that_ends_itself_shows_no_notices(run):
    """As a worker does when the coordinator fails."""
    notices = HELD[: HELD.index("F0000")]
    done = run("print('not reached')", f'os.write(2, b"{notices}"); os._exit(1)')
    assert (done.returncode, done.stderr, done.stdout) == (1, "", "")


def test_what_was_held_back_is_shown_where_the_import_fails(run):
    done = run("print('not reached')", f'os.write(2, b"{HELD}"); raise ImportError("broken")')
    assert done.returncode == 1
    assert done.stderr.startswith(HELD.replace("\\n", "\n"))
    assert done.stderr.endswith("ImportError: broken\n")


def test_no_gpu_is_explained_without_a_driver_and_without_cuda(run):
    code = "print(device.why_no_gpu(device.CUSOLVER))"
    assert run(code, BUILD="cpu").stdout == "this TensorFlow is built without CUDA\n"
    if sys.platform == "linux" and not find_library("cuda"):
        said = [run(code, TF_CPP_MIN_LOG_LEVEL=level).stdout for level in ("0", "3")]
        assert said[0] == said[1] == f"no NVIDIA driver (libcuda.so.1: {MISSING})\n"


@pytest.mark.parametrize(
    ("error", "report", "environment", "reason"),
    [
        (100, "", {}, "the NVIDIA driver answers: no CUDA-capable device is detected (100)"),
        (
            *(100, "", {"CUDA_VISIBLE_DEVICES": "-1"}),
            "the NVIDIA driver answers: no CUDA-capable device is detected (100); "
            "CUDA_VISIBLE_DEVICES is '-1'",
        ),
        (0, NOT_LOADED, {}, LIBRARIES),
        (0, IGNORED, {}, OLD_GPU),
        (-1, "", {}, "the NVIDIA driver lists no GPU"),
        (0, "", {}, "TensorFlow does not say why"),
        (0, "", {"CUDA_VISIBLE_DEVICES": ""}, "TensorFlow does not say why; CUDA_VISIBLE_DEVICES is ''"),
    ],
    ids=["driver", "hidden", "libraries", "old", "empty", "nothing", "nothing-hidden"],
)
def test_no_gpu_is_explained_where_there_is_a_driver(run, driver, error, report, environment, reason):
    setting = {"LD_LIBRARY_PATH": str(driver), "ERROR": str(error), "REPORT": report}
    done = run("print(device.why_no_gpu(device.CUSOLVER))", **setting, **environment)
    assert (done.stdout, done.stderr) == (f"{reason}\n", "")


def test_a_library_that_is_no_driver_is_named(run, driver):
    (driver / "driver.c").write_text("int nothing(void) { return 0; }")
    command = ["cc", "-shared", "-fPIC", "-o", driver / "libcuda.so.1", driver / "driver.c"]
    subprocess.run(command, check=True)
    done = run("print(device.why_no_gpu(device.CUSOLVER))", LD_LIBRARY_PATH=str(driver))
    assert done.stdout.startswith("no NVIDIA driver (")
    assert "undefined symbol: cuInit" in done.stdout
    assert done.stderr == ""


def test_cusolver_is_loaded_from_its_package_where_there_is_a_driver(run, driver):
    """TensorFlow does not look for it there; whatever is loaded is found by its name."""
    folder = driver / "nvidia/cusolver/lib"
    folder.mkdir(parents=True)
    (driver / "cusolver.c").write_text("int answer(void) { return 42; }")
    source = [str(driver / "cusolver.c"), "-Wl,-soname,libcusolver.so.11"]
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcusolver.so.11", *source], check=True)
    package = driver / "tensorflow"
    package.mkdir()
    (driver / "tensorflow.py").rename(package / "__init__.py")
    code = "import ctypes; print(ctypes.CDLL('libcusolver.so.11').answer())"
    assert run(code, LD_LIBRARY_PATH=str(driver), ERROR="0").stdout == "42\n"
    (driver / "libcuda.so.1").unlink()
    assert "libcusolver.so.11: cannot open" in run(code, LD_LIBRARY_PATH=str(driver)).stderr


@pytest.fixture
def tensorflow(monkeypatch):
    """A recorder in place of TensorFlow, with three GPUs."""
    from stages.training import device

    monkeypatch.setattr(device, "GPUS", ["gpu 0", "gpu 1", "gpu 2"])
    monkeypatch.setattr(device, "tf", recorder := MagicMock())
    return recorder.config


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ((0, 1), ["gpu 0", "gpu 1", "gpu 2"]),
        ((0, 2), ["gpu 0"]),  # each process gets equally many, as the strategy needs it
        ((1, 2), ["gpu 1"]),
        ((2, 3), ["gpu 2"]),
    ],
)
@pytest.mark.parametrize("asked", ["auto", "gpu"])
def test_a_process_sees_its_share_of_the_gpus(tensorflow, share, expected, asked):
    from stages.training.device import set_up_tensorflow

    assert set_up_tensorflow(asked, share=share) == "gpu"
    tensorflow.set_visible_devices.assert_called_once_with(expected, "GPU")
    growing = tensorflow.experimental.set_memory_growth.call_args_list
    assert [call.args for call in growing] == [(gpu, True) for gpu in expected]
    tensorflow.experimental.enable_op_determinism.assert_called_once_with()


def test_a_cpu_run_sees_no_gpu(tensorflow):
    from stages.training.device import set_up_tensorflow

    assert set_up_tensorflow("cpu", share=(3, 4)) == "cpu"
    tensorflow.set_visible_devices.assert_called_once_with([], "GPU")
    tensorflow.experimental.set_memory_growth.assert_not_called()
    tensorflow.experimental.enable_op_determinism.assert_called_once_with()


@pytest.mark.parametrize("asked", ["auto", "gpu"])
def test_more_processes_than_gpus_are_named(tensorflow, asked):
    from stages.training.device import set_up_tensorflow

    with pytest.raises(StageError, match=r"^train\.workers: got 4 processes on this host, which has 3 GPUs;"):
        set_up_tensorflow(asked, share=(0, 4))
    tensorflow.set_visible_devices.assert_not_called()


@pytest.mark.parametrize("precision", ["float32", "tf32", "mixed_bfloat16"])
def test_tf32_is_used_only_if_it_is_asked_for(tensorflow, precision):
    from stages.training.device import set_up_tensorflow

    tensorflow.experimental.get_device_details.return_value = {"compute_capability": (8, 0)}
    set_up_tensorflow("auto", precision=precision)
    switch = tensorflow.experimental.enable_tensor_float_32_execution
    switch.assert_called_once_with(precision == "tf32")


def test_tf32_is_refused_by_a_gpu_that_has_none(tensorflow):
    from stages.training.device import set_up_tensorflow

    tensorflow.experimental.get_device_details.return_value = {"compute_capability": (7, 5)}
    with pytest.raises(StageError, match=r"^train\.precision: got 'tf32'; .* is 7\.5, and TF32 needs 8\.0"):
        set_up_tensorflow("auto", precision="tf32")
    assert set_up_tensorflow("cpu", precision="tf32") == "cpu"


def test_a_missing_gpu_is_an_error_with_its_reason(tensorflow, monkeypatch):
    from stages.training import device

    monkeypatch.setattr(device, "GPUS", [])
    monkeypatch.setattr(device, "why_no_gpu", lambda cusolver: "a reason")
    with pytest.raises(StageError, match=r"^train\.device: got 'gpu', .* no GPU here: a reason; takes auto"):
        device.set_up_tensorflow("gpu")
    assert device.set_up_tensorflow("auto") == "cpu"
