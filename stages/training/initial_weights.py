"""Initial weights out of a trained model, `train.init_from`: matched by character where vocabularies differ.

The check stage looks at the model without TensorFlow, before any output of the train stage is removed.
"""

import json
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from stages.common.errors import StageError
from stages.common.params import RANDOM_WEIGHTS, Model, Params
from stages.common.paths import MODEL_FILE
from stages.text.vocabulary import vocabulary_sha256
from stages.text.vocabulary_file import FILE_NAME, read_model_text
from stages.training.checkpoints import DamagedCheckpoint, read_checkpoint

ARCHITECTURE = ("cell", "layers", "units", "embedding")  # what the weights' shapes follow from
CELLS = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}  # by Keras's class
UNREADABLE = (BadZipFile, zlib.error, LookupError, ValueError, TypeError, RuntimeError, EOFError)
TAKES = f"{RANDOM_WEIGHTS}, a folder with model.keras and vocabulary.json, its model.keras, or a checkpoint"


def file_of(init_from: str) -> Path | None:
    """Find the file that holds the initial weights.

    Args:
        init_from: the parameter `train.init_from`.

    Returns:
        The file; None for random weights.

    Raises:
        StageError: there is no such file.
    """
    path = Path(init_from)
    if path == Path(RANDOM_WEIGHTS):
        return None
    file = path / MODEL_FILE.name if path.is_dir() else path
    if not file.is_file():
        raise StageError(
            f"train.init_from: got {init_from!r}; takes {TAKES}, and {file} is not there"
            + (" (add -C and the model's folder to dvc exp run)" if ".dvc" in Path.cwd().parts else "")
        )
    return file


def require_same_architecture(file: Path, model: Model) -> str:
    """Check that a saved model has the architecture that `params.yaml` asks for.

    Args:
        file: a `.keras` file or a checkpoint, with vocabulary.json beside it or one folder above.
        model: the section `model` of `params.yaml`.

    Returns:
        The saved model's vocabulary.

    Raises:
        StageError: it has another architecture, is damaged, or is not of the vocabulary.
    """
    folder = next((f for f in (file.parent, file.parent.parent) if (f / FILE_NAME).exists()), file.parent)
    vocabulary = read_model_text(folder).vocabulary
    found, of_vocabulary = _about_checkpoint(file) if file.suffix == ".npz" else _about_keras(file)
    for name in ARCHITECTURE:
        wanted, has = getattr(model, name), found.get(name)
        if wanted != has:
            raise StageError(
                f"train.init_from: {file} has model.{name}: {json.dumps(has)}; takes a model with "
                f"model.{name}: {json.dumps(wanted)}, as in params.yaml"
            )
    if of_vocabulary != vocabulary_sha256(vocabulary):
        raise StageError(f"train.init_from: {file} is not of the vocabulary in {folder / FILE_NAME}")
    return vocabulary


def initial_weights(
    file: Path, params: Params, vocabulary: str, random: list[np.ndarray]
) -> list[np.ndarray]:
    """Read the weights of a saved model for a model of another vocabulary.

    Args:
        file: as for `require_same_architecture`.
        params: all parameters.
        vocabulary: the new model's.
        random: the new model's random weights in Keras's order, which new characters keep.

    Returns:
        The new model's weights.

    Raises:
        StageError: as for `require_same_architecture`, or the output layer has weights of its own.
    """
    saved_vocabulary = require_same_architecture(file, params.model)
    if file.suffix == ".npz":
        saved = read_checkpoint(file).weights
    else:
        import keras

        saved = keras.models.load_model(file, compile=False).get_weights()
    if params.train.tied_embedding and not np.array_equal(saved[0], saved[-2].T):
        raise StageError(
            f"train.init_from: {file} has an output layer of its own; takes a model that was trained with "
            "train.tied_embedding: true, as params.yaml asks for"
        )
    characters = [character for character in vocabulary if character in saved_vocabulary]
    new = [vocabulary.index(character) for character in characters]
    old = [saved_vocabulary.index(character) for character in characters]
    # a row of the first weight for each character, a column of the output layer's kernel, a bias
    weights = [random[0].copy(), *saved[1:-2], random[-2].copy(), random[-1].copy()]
    weights[0][new] = saved[0][old]
    weights[-2][:, new] = saved[-2][:, old]
    weights[-1][new] = saved[-1][old]
    return weights


def _about_checkpoint(file: Path) -> tuple[dict[str, Any], str]:
    """Read the architecture and the vocabulary's hash out of a checkpoint."""
    try:
        checkpoint = read_checkpoint(file)
    except DamagedCheckpoint as error:
        raise StageError(f"train.init_from: {file}: {error}") from None
    return checkpoint.model, checkpoint.vocabulary


def _about_keras(file: Path) -> tuple[dict[str, Any], str]:
    """Read the architecture and the vocabulary's hash out of a `.keras` file of the train stage."""
    try:
        with ZipFile(file) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"checksum of {damaged}")
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
            vocabulary = json.loads(archive.read("metadata.json"))["vocabulary_sha256"]
        cells = [layer for layer in layers if layer["class_name"] in CELLS]
        embedding = [layer["config"]["units"] for layer in layers if layer["config"]["name"] == "embedding"]
        about = {
            "cell": CELLS[cells[0]["class_name"]],
            "layers": len(cells),
            "units": cells[0]["config"]["units"],
            "embedding": embedding[0] if embedding else None,
        }
    except UNREADABLE as error:
        raise StageError(
            f"train.init_from: {file} is damaged or was not written by the train stage ({error})"
        ) from None
    return about, vocabulary
