"""What of a machine is in the fingerprint."""

import ctypes
import shutil
import subprocess
import sys
from types import SimpleNamespace as Namespace

import pytest

from stages.training import machine
from stages.training.fingerprint import fingerprint, fingerprint_inputs
from stages.training.machine import CPUINFO, kernel_switches, processor
from tests.support import ROOT

ZEN_4 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
microcode\t: {microcode}
cpu MHz\t\t: {mhz}
flags\t\t: fpu sse2 ssse3 fma sse4_1 f16c avx2 avx512f avx512_bf16 avx512_vnni {flags}

processor\t: 1
vendor_id\t: AuthenticAMD
flags\t\t: fpu
"""
GRAVITON_3 = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd aes fphp asimdhp sve i8mm bf16 ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
"""


@pytest.fixture
def described(tmp_path):
    """A function from the content of /proc/cpuinfo to the description."""

    def describe(content):
        (tmp_path / "cpuinfo").write_text(content)
        return processor(tmp_path / "cpuinfo")

    return describe


def test_a_processor_is_known_by_its_model_and_its_vector_instructions(described):
    zen_4 = described(ZEN_4.format(microcode="0x1", mhz=2600, flags=""))
    assert zen_4 == "AuthenticAMD 25 17 avx2 avx512_bf16 avx512_vnni avx512f f16c fma sse2 sse4_1 ssse3"
    # a newer microcode or kernel, or another clock rate, chooses no other kernel
    assert described(ZEN_4.format(microcode="0x2", mhz=3100, flags="ibrs hypervisor")) == zen_4
    assert described(ZEN_4.format(microcode="0x1", mhz=2600, flags="amx_bf16")) != zen_4
    assert described(ZEN_4.format(microcode="0x1", mhz=2600, flags="").replace("17", "97")) != zen_4
    assert described(GRAVITON_3) == "0x41 0x1 0xd40 asimd asimdhp bf16 fphp i8mm sve"


@pytest.mark.skipif(not CPUINFO.exists(), reason="/proc/cpuinfo is Linux's")
def test_this_processor_is_described():
    assert len(processor().split()) > 3


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("TF_ENABLE_ONEDNN_OPTS", True),
        ("TF_XLA_FLAGS", True),
        ("XLA_FLAGS", True),
        ("ONEDNN_MAX_CPU_ISA", True),
        ("ONEDNN_DEFAULT_FPMATH_MODE", True),
        ("TF_CUDNN_USE_AUTOTUNE", True),
        ("NCCL_ALGO", True),
        ("NCCL_DEBUG", False),
        ("CUBLAS_LOGINFO_DBG", False),
        ("NVIDIA_TF32_OVERRIDE", True),
        ("CUBLAS_WORKSPACE_CONFIG", True),
        ("TF_CPP_MIN_LOG_LEVEL", False),
        ("TF_CONFIG", False),
        ("TF_CLI_CONFIG_FILE", False),  # Terraform's
        ("CUDA_VISIBLE_DEVICES", False),
    ],
)
def test_a_variable_counts_exactly_if_it_chooses_kernels(params, monkeypatch, name, matters):
    monkeypatch.delenv(name, raising=False)
    before = fingerprint(fingerprint_inputs(params(), "cpu", "0" * 64))
    monkeypatch.setenv(name, "another")
    assert (name in kernel_switches()) == matters
    assert (fingerprint(fingerprint_inputs(params(), "cpu", "0" * 64)) != before) == matters


def test_what_is_pinned_is_the_same_whatever_the_user_has_set(tmp_path):
    """Another backend and precision in ~/.keras/keras.json, oneDNN switched off in the environment."""
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras/keras.json").write_text('{"floatx": "float64", "epsilon": 0.5, "backend": "jax"}')
    code = (
        "import os, stages.training.device, keras; k = keras.config; "
        "print(k.backend(), k.floatx(), k.epsilon(), k.image_data_format(), keras.layers.Dense(1).dtype, "
        "os.environ['TF_ENABLE_ONEDNN_OPTS'], os.environ['CUBLAS_WORKSPACE_CONFIG']); "
        "device = stages.training.device; experimental = device.tf.config.experimental; "
        "tf32 = experimental.tensor_float_32_execution_enabled; "
        "print(tf32(), device.set_up_tensorflow('cpu'), tf32())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"KERAS_HOME": str(tmp_path / ".keras"), "TF_ENABLE_ONEDNN_OPTS": "0", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "tensorflow float32 1e-07 channels_last float32 1 :4096:8\nTrue cpu False\n"
    assert done.stderr.startswith("warning: TF_ENABLE_ONEDNN_OPTS=0 is ignored: the pipeline sets it to 1")
    assert done.stderr.count("\n") == 1


ANSWERS = """
#include <stddef.h>
size_t cudnnGetVersion(void) { return VERSION; }
int cudaRuntimeGetVersion(int *version) { *version = 12050; return 0; }
int cublasGetProperty(int part, int *version) { *version = 12 - part; return 0; }
int ncclGetVersion(int *version) { *version = 22703; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGet(int *device, int number) { *device = 10 + number; return number > 3 ? 101 : 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)device << 32; return 0; }
"""


@pytest.fixture
def with_gpus(monkeypatch, tmp_path):
    """A function that gives TensorFlow GPUs of these numbers, and libraries that a C compiler made."""

    def make(*numbers, cudnn=90300):
        if not (compiler := shutil.which("cc")):
            pytest.skip("needs a C compiler")
        source, library = tmp_path / "answers.c", tmp_path / f"answers-{cudnn}.so"
        source.write_text(ANSWERS)
        subprocess.run(
            [compiler, f"-DVERSION={cudnn}", "-shared", "-fPIC", "-o", library, source], check=True
        )
        present = {f"lib{name}" for name in ("cudnn.so.9", "cudart.so.12", "cuda.so.1", "cublas.so.12")}
        present.add("libnccl.so.2")
        load = ctypes.CDLL
        monkeypatch.setattr(ctypes, "CDLL", lambda name: load(library if name in present else name))
        gpus = [Namespace(name=f"/physical_device:GPU:{number}") for number in numbers]
        details = {"device_name": "NVIDIA H100 80GB HBM3", "compute_capability": (9, 0)}
        config = Namespace(
            get_visible_devices=lambda kind: gpus,
            experimental=Namespace(get_device_details=lambda gpu: details),
        )
        built = {"cudnn_version": "9", "cuda_version": "12.5.1"}
        sysconfig = Namespace(get_build_info=lambda: built)
        monkeypatch.setattr(machine, "tf", Namespace(config=config, sysconfig=sysconfig))
        return present

    return make


def test_gpus_are_known_by_name_number_and_the_versions_of_their_libraries(with_gpus):
    with_gpus(0, 1)
    others = "CUDA 12.5, driver 13.0, cuBLAS 12.11.10, NCCL 2.27"
    assert machine.gpus() == f"2 × NVIDIA H100 80GB HBM3 9.0, cuDNN 9.3.0, {others}"
    with_gpus(1, cudnn=8907)
    assert machine.gpus() == f"1 × NVIDIA H100 80GB HBM3 9.0, cuDNN 8.9.7, {others}"


def test_a_fingerprint_of_a_gpu_run_has_them(params, with_gpus):
    def of(*numbers, cudnn=90300):
        with_gpus(*numbers, cudnn=cudnn)
        inputs = fingerprint_inputs(params(), "gpu", "0" * 64)
        assert inputs["processor"] == machine.gpus()
        return fingerprint(inputs)

    assert len({of(0), of(0, 1), of(0, cudnn=8907)}) == 3
    assert of(1) == of(0)  # another card of the same model


def test_a_library_that_does_not_answer_has_the_version_that_tensorflow_was_built_for(with_gpus):
    with_gpus(0).clear()
    assert list(machine.versions().values()) == ["9", "12.5.1", *["unknown"] * 3]
    assert machine.gpu_memory() is None


def test_the_memory_is_that_of_the_smallest_gpu_that_is_used(with_gpus):
    with_gpus(3, 2)
    assert machine.gpu_memory() == 12 << 32  # more than 32 bits hold
    with_gpus(1, 4)
    assert machine.gpu_memory() is None  # the driver answers with an error
    with_gpus()
    assert machine.gpu_memory() is None


def test_the_facts_about_the_device(with_gpus):
    with_gpus(0, 1)
    assert machine.device_facts("gpu", "tf32", "ignored") == {
        "device": "gpu",
        "names": ["NVIDIA H100 80GB HBM3"] * 2,
        "gpus": 2,
        "memory": 10 << 32,
        "cudnn": "9.3.0",
        "cuda": "12.5",
        "driver": "13.0",
        "precision": "tf32",
        "no_gpu": None,
        "reproducible": True,
    }
    on_cpu = machine.device_facts("cpu", "float32", "a reason")
    assert {name: value for name, value in on_cpu.items() if value not in (None, [], 0)} == {
        "device": "cpu",
        "precision": "float32",
        "no_gpu": "a reason",
        "reproducible": True,
    }
    assert on_cpu.keys() == machine.device_facts("gpu", "tf32").keys()
