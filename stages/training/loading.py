"""Loading of a trained model: the final one, or that of an epoch."""

from pathlib import Path

import keras

from stages.common.errors import StageError
from stages.common.paths import CHECKPOINTS_DIR, MODEL_FILE
from stages.model.architecture import build_model
from stages.model.export import vocabulary_of
from stages.text.vocabulary import vocabulary_sha256
from stages.text.vocabulary_file import ModelText
from stages.training.checkpoints import checkpoint_files, file_name, fitting_checkpoint


def load_trained(folder: Path, epoch: int | None, text: ModelText) -> keras.Sequential:
    """Load a trained model.

    Args:
        folder: the model's folder, for example `models`.
        epoch: of a checkpoint; None for the final model.
        text: how the model reads text, from the same folder.

    Returns:
        The model.

    Raises:
        StageError: there is no such model, it is damaged, or it is of another text.
    """
    if epoch is not None:
        checkpoints = folder / CHECKPOINTS_DIR.name
        path = checkpoints / file_name(epoch)
        if not path.exists():
            there = list(checkpoint_files(checkpoints))
            others = (
                f"there are epochs {there[0]} to {there[-1]}" if there else "`dvc repro train` creates it"
            )
            raise StageError(f"{path} is missing; {others}")
        checkpoint = fitting_checkpoint(path, text.vocabulary)
        model = build_model(**checkpoint.model)
        model.set_weights(checkpoint.weights)
        return model
    path = folder / MODEL_FILE.name
    if not path.exists():
        raise StageError(f"{path} is missing; `dvc repro train` creates it")
    found = vocabulary_of(path)
    if found != vocabulary_sha256(text.vocabulary):
        what = "is damaged or was not written by the train stage" if found is None else "is of another text"
        raise StageError(f"{path} {what}; `dvc repro train` creates it and the vocabulary.json that fits")
    return keras.models.load_model(path, compile=False)
