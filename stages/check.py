"""Stage `check`: are the parameters valid, and are the files that they name there?

DVC removes the outputs of a stage before it runs the stage. So a mistake is reported here first, where it
costs nothing.
"""

import ctypes
from pathlib import Path

from stages.common.combinations import require_fitting, require_validation_split
from stages.common.errors import StageError, run_stage
from stages.common.files import write_bytes_atomically
from stages.common.params import CORPORA, INITIAL, Params, read_params
from stages.common.paths import CORPUS_PATH_FILE
from stages.text.corpora import is_description, read_corpus
from stages.text.own_text import require_file
from stages.training.initial_weights import file_of, require_same_architecture


def main() -> None:
    """Check the parameters, the initial weights and the description or the text file; write its path."""
    params = read_params()
    require_device(params)
    require_validation_split(params.train, params.vectorize.validation > 0)
    if weights := file_of(params.train.init_from):
        require_noticed("train.init_from", weights, INITIAL)
        require_same_architecture(weights, params.model)
    path = Path(params.download.corpus)
    require_noticed("download.corpus", path, CORPORA)
    if is_description(path):
        read_corpus(path)
    else:
        require_file(path)
    write_bytes_atomically(CORPUS_PATH_FILE, f"{path}\n".encode())


def require_noticed(name: str, file: Path, folder: Path) -> None:
    """Check that DVC notices a change of a file.

    Args:
        name: the parameter that names it.
        file: the file; it may be a link.
        folder: the dependency in `dvc.yaml` that the file belongs to.

    Raises:
        StageError: it is in a linked folder, which DVC leaves out.
    """
    if not file.parent.resolve().is_relative_to(folder.resolve()):
        raise StageError(
            f"{name}: got {str(file)!r}; takes no folder that is a link, in which DVC notices no change; "
            f"copy it to {folder}/"
        )


def require_device(params: Params) -> None:
    """Check `train.device` and what only some devices have, as far as that needs no TensorFlow.

    The train stage checks it again, on the device that it gets.

    Args:
        params: all parameters.

    Raises:
        StageError: a GPU is asked for and has no driver, or parameters do not go together.
    """
    device, no_driver = params.train.device, ""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        no_driver = f"no NVIDIA driver ({error})"
    if device == "gpu" and no_driver:
        raise StageError(f"train.device: got 'gpu', but there is {no_driver}; takes auto or cpu here")
    if device == "auto":
        device = "cpu" if no_driver else "gpu"
    require_fitting(params, device)


if __name__ == "__main__":
    run_stage(main)
