"""Set-up of TensorFlow: the device, deterministic operations, one thread per operation."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from stages.common.errors import StageError


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr; show it only if the block fails.

    TensorFlow reports on its build and on missing GPUs there, whatever the logging level.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
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


# part of what the numbers depend on, so it is the same on every machine
PINNED = {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
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

    GPUS = tf.config.list_physical_devices("GPU")
# a user's ~/.keras/keras.json may have other values
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")


def set_up_tensorflow(device: str, cores: int | None = None) -> str:
    """Choose the device and make TensorFlow deterministic. Call it before anything is computed.

    Every operation runs on one thread, and as many operations run side by side as there are cores to use.
    So what is added to what does not depend on the number of cores.

    Args:
        device: auto, cpu or gpu.
        cores: how many to use at most; None for all that this process may run on.

    Returns:
        cpu or gpu.

    Raises:
        StageError: gpu was asked for and there is none.
    """
    if device == "gpu" and not GPUS:
        raise StageError(
            "train.device: got 'gpu', but TensorFlow sees no GPU here; takes auto or cpu, or a GPU with "
            "the packages of requirements/gpu.txt"
        )
    chosen = "gpu" if GPUS and device != "cpu" else "cpu"
    if chosen == "cpu":
        tf.config.set_visible_devices([], "GPU")
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
