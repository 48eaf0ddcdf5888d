"""Set-up of TensorFlow: the device, deterministic operations, one thread per operation."""

import gc
import os
import sys

from stages.common.errors import StageError
from stages.common.stderr import quiet_stderr
from stages.training.cuda import load_cusolver, why_no_gpu

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
            f"warning: {name}={os.environ[name]} is ignored: the pipeline sets it to {value}, since "
            "weights can depend on it",
            file=sys.stderr,
        )
    os.environ[name] = value
# XLA gives some sums and products to YNNPACK. In TensorFlow 2.21 two microbatches that run such a program at
# the same time crash the process now and then (seen 2 times in 45 runs with train.targets: all).
WITHOUT_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type="
flags = os.environ.get("XLA_FLAGS", "").split()
if flags and not flags[0].startswith("--"):
    print(f"warning: XLA_FLAGS names a file, which should have {WITHOUT_YNNPACK}", file=sys.stderr)
elif WITHOUT_YNNPACK not in flags:
    os.environ["XLA_FLAGS"] = " ".join([*flags, WITHOUT_YNNPACK])  # of two values XLA takes the later one
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only: the rest is about the build
gc.disable()  # what is imported stays; looking for garbage in it takes a sixth of the import
with quiet_stderr():
    import keras
    import tensorflow as tf  # reads these variables

    CUSOLVER = load_cusolver()
    GPUS = tf.config.list_physical_devices("GPU")
gc.freeze()  # no later collection looks at it either
gc.enable()
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
        StageError: gpu was asked for and there is none, there are more processes than GPUs, or these
            have no TF32 and it was asked for.
    """
    if device == "gpu" and not GPUS:
        raise StageError(
            f"train.device: got 'gpu', but TensorFlow sees no GPU here: {why_no_gpu(CUSOLVER)}; takes auto "
            "or cpu, or a GPU with the packages of requirements/gpu.txt"
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
    if chosen == "gpu" and precision == "tf32":
        for gpu in GPUS:
            capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", ())
            if capability and capability < (8, 0):
                raise StageError(
                    "train.precision: got 'tf32'; takes float32 or mixed_bfloat16 on this GPU: its compute "
                    f"capability is {'.'.join(map(str, capability))}, and TF32 needs 8.0 (Ampere) or more"
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
