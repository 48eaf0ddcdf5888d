"""Stage `check`: are the parameters valid, and are the files that they name there?

DVC removes the outputs of a stage before it runs the stage. So a mistake is answered here first, where it
costs nothing.
"""

import ctypes
from pathlib import Path

from stages.common.errors import StageError, run_stage
from stages.common.files import write_bytes_atomically
from stages.common.params import Params, read_params
from stages.common.paths import CORPUS_PATH_FILE
from stages.text.corpora import is_description, read_corpus
from stages.text.own_text import require_file
from stages.training.initial_weights import file_of, require_same_architecture


def main() -> None:
    """Check the parameters, the initial weights and the description or the text file; write its path."""
    params = read_params()
    require_precision(params)
    if weights := file_of(params.train.init_from):
        require_same_architecture(weights, params.model)
    path = Path(params.download.corpus)
    if is_description(path):
        read_corpus(path)
    else:
        require_file(path)
    write_bytes_atomically(CORPUS_PATH_FILE, f"{path}\n".encode())


def require_precision(params: Params) -> None:
    """Check `train.device` and `train.precision` as far as that needs no TensorFlow.

    The train stage checks them again, on the device that it gets.

    Args:
        params: all parameters.

    Raises:
        StageError: there is no GPU's driver and a GPU is asked for, or a CPU does not have the precision.
    """
    train, model = params.train, params.model
    no_driver = ""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        no_driver = f"no NVIDIA driver ({error})"
    if train.device == "gpu" and no_driver:
        raise StageError(f"train.device: got 'gpu', but there is {no_driver}; takes auto or cpu here")
    if train.device == "gpu" or (train.device == "auto" and not no_driver):
        return
    of_article = (model.cell, model.layers, model.dropout, model.embedding, train.targets)
    if train.precision == "tf32":
        raise StageError(
            "train.precision: got 'tf32'; takes float32 or mixed_bfloat16 on a CPU, which has no TF32"
        )
    if train.precision != "float32" and of_article != ("lstm", 1, 0, None, "last"):
        raise StageError(
            f"train.precision: got {train.precision!r}; takes float32 here: on a CPU only the article's "
            "model multiplies in bfloat16 (one lstm layer without dropout or embedding, train.targets: last)"
        )


if __name__ == "__main__":
    run_stage(main)
