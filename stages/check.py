"""Stage `check`: are the parameters valid, and are the files that they name there?

DVC removes the outputs of a stage before it runs the stage. So a mistake is reported here first, where it
costs nothing. The stages `download` and `train` depend on the hashes that this stage writes, so a file in
`corpora/` or `initial/` that is not named has no influence on them.
"""

import ctypes
import os
from pathlib import Path

from stages.common.combinations import require_fitting, require_validation_split
from stages.common.errors import StageError, run_stage
from stages.common.files import sha256_of, write_json_atomically
from stages.common.params import CORPORA, INITIAL, Model, Params, read_params
from stages.common.paths import CORPUS_FILES, INITIAL_FILES
from stages.text.corpora import is_description, read_corpus
from stages.text.own_text import require_file
from stages.training.initial_weights import file_of, require_same_architecture


def main() -> None:
    """Check the parameters and the files that they name; write the hashes of these."""
    params = read_params()
    require_device(params)
    require_validation_split(params.train, params.vectorize.validation > 0)
    weights = file_of(params.train.init_from)
    if weights:
        require_usable(weights, params.model)
    for path in params.download.corpora:
        if is_description(path):
            read_corpus(path)
        else:
            require_file(path)
    of_corpora = hashes(params.download.corpora, CORPORA)
    write_json_atomically(INITIAL_FILES, hashes([weights] if weights else [], INITIAL))
    write_json_atomically(CORPUS_FILES, of_corpora)


def hashes(files: list[Path], folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of files of which DVC notices each change.

    Args:
        files: the files; each may be a link.
        folder: the dependency of this stage that they are in.

    Returns:
        The hash of each, by its path.

    Raises:
        StageError: a file is in a linked folder, which DVC leaves out.
    """
    for file in files:
        path = Path(os.path.normpath(file.parent)).relative_to(folder)
        if file.parent.resolve() != folder.resolve() / path:
            raise StageError(
                f"{file} is in a folder that is a link, where DVC notices no change; replace the link by a "
                "copy of the folder"
            )
    return {str(file): sha256_of(file) for file in files}


def require_usable(file: Path, model: Model) -> None:
    """Check a file of initial weights, as far as that needs no TensorFlow.

    Args:
        file: the file; its suffix decides how the train stage reads it.
        model: the section `model` of `params.yaml`.

    Raises:
        StageError: it has another suffix, cannot be read, or is of another architecture.
    """
    if file.suffix not in (".keras", ".npz"):
        raise StageError(
            f"train.init_from: got {str(file)!r}; takes a file whose name ends in .keras or .npz"
        )
    try:
        require_same_architecture(file, model)
    except OSError as error:
        raise StageError(f"train.init_from: {file} cannot be read ({error})") from None


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
