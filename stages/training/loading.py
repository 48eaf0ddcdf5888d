"""Loading of a trained model: the final one, or that of an epoch."""

import keras

from stages.common.errors import StageError
from stages.common.paths import CHECKPOINTS_DIR, MODEL_FILE
from stages.model.architecture import build_model
from stages.training.checkpoints import DamagedCheckpoint, checkpoint_files, file_name, read_checkpoint


def load_trained(epoch: int | None, maxlen: int, vocab_size: int) -> keras.Sequential:
    """Load a trained model.

    Args:
        epoch: of a checkpoint; None for the final model.
        maxlen: characters in a window, as the windows have them.
        vocab_size: distinct characters, as the windows have them.

    Returns:
        The model.

    Raises:
        StageError: there is no such model, it is damaged, or it does not fit the windows.
    """
    path = MODEL_FILE if epoch is None else CHECKPOINTS_DIR / file_name(epoch)
    if not path.exists():
        there = [int(file.stem.split("-")[1]) for file in checkpoint_files()]
        others = f"; there are epochs {there[0]} to {there[-1]}" if there and epoch is not None else ""
        raise StageError(f"{path} is missing{others}; `dvc repro` creates it")
    try:
        if epoch is None:
            model = keras.models.load_model(path, compile=False)
        else:
            checkpoint = read_checkpoint(path)
            model = build_model(**checkpoint.model)
            model.set_weights(checkpoint.weights)
    except (DamagedCheckpoint, ValueError) as error:
        raise StageError(f"{path} cannot be read: {error}") from None
    if model.input_shape[1:] != (maxlen, vocab_size):
        raise StageError(
            f"{path} takes windows of {model.input_shape[1]} out of {model.input_shape[2]} characters, "
            f"data/windows.npz has {maxlen} out of {vocab_size}; `dvc repro` creates a model that fits"
        )
    return model
