"""What of a machine chooses among numeric kernels: its processor or GPUs, and environment variables.

Other kernels add in another order, so the last bits of a weight depend on these.
"""

import os
import platform
import re
import subprocess
from pathlib import Path

import tensorflow as tf

# TensorFlow's, oneDNN's, XLA's and NVIDIA's switches; TF_CPP_*, TF_CONFIG and Terraform's TF_* are none
SWITCHES = re.compile(
    r"(TF_(AUTO|CONV|CUBLAS|CUDA|CUDNN|DETERMINISTIC|DISABLE|ENABLE|MATMUL|MKL|NUM|ONEDNN|OVERRIDE|SET|USE|XLA)"
    r"|XLA_|ONEDNN_|DNNL_|CUDNN_|CUBLAS_|NVIDIA_TF32)"
)
CPUINFO = Path("/proc/cpuinfo")
# the processor's maker and model on x86-64 and on Arm, and the instructions that kernels are chosen by
MODEL = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU variant", "CPU part")
INSTRUCTIONS = re.compile(r"(s?sse|avx|amx|fma|f16c|asimd|sve|sme|bf16|i8mm|fphp)")


def kernel_switches() -> dict[str, str]:
    """Collect the environment variables that choose among kernels, by name."""
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
    """Describe the GPUs that TensorFlow uses, each by its name and compute capability."""
    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    return ", ".join(f"{gpu.get('device_name')} {gpu.get('compute_capability')}" for gpu in details)
