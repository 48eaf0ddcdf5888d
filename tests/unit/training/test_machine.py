"""What of a machine is in the fingerprint."""

import subprocess
import sys

import pytest

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
        ("NVIDIA_TF32_OVERRIDE", True),
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
        "os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"KERAS_HOME": str(tmp_path / ".keras"), "TF_ENABLE_ONEDNN_OPTS": "0", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "tensorflow float32 1e-07 channels_last float32 1\n"
    assert done.stderr.startswith("warning: TF_ENABLE_ONEDNN_OPTS=0 is ignored: the pipeline sets it to 1")
    assert done.stderr.count("\n") == 1
