"""What a window costs: the validation loss with windows of `maxlen` characters and with context that goes on.

    python -m benchmarks.context

It reads the trained model, the corpus and the parameters of the workspace. Both losses are of the same
characters: all of the validation split but its first `maxlen`.
"""

from typing import Any

import numpy as np

import stages.training.device  # noqa: F401, first: it imports TensorFlow without its messages
from stages.common.errors import StageError, run_stage
from stages.common.params import read_params
from stages.common.paths import CORPUS_FILE, MODELS_DIR
from stages.model.architecture import build_model
from stages.text.normalization import read_text, split_starts
from stages.text.vocabulary_file import read_model_text
from stages.text.windows import cut
from stages.training.loading import load_trained


def main() -> None:
    """Compute and print both losses."""
    params = read_params()
    about = read_model_text(MODELS_DIR)
    model = load_trained(MODELS_DIR, None, about)
    text = read_text(CORPUS_FILE, params.vectorize)
    split = text[slice(*split_starts(len(text), params.vectorize))]
    if len(split) <= about.maxlen:
        raise StageError("vectorize.validation: takes a validation split of more than one window here")
    index_of = {character: index for index, character in enumerate(about.vocabulary)}
    indices = np.array([index_of[character] for character in split])
    size = len(about.vocabulary)
    windows, targets = cut(indices, about.maxlen, 1)
    of_windows = [
        loss
        for at in range(0, len(windows), 1024)
        for loss in losses(
            model, np.eye(size, dtype=np.float32)[windows[at : at + 1024]], targets[at : at + 1024]
        )
    ]
    endless = build_model(len(indices) - 1, size, **params.model.model_dump(), return_sequences=True)
    endless.set_weights(model.get_weights())
    of_context = losses(endless, np.eye(size, dtype=np.float32)[None, indices[:-1]], indices[None, 1:])[0]
    print(f"{len(targets):,} characters of the validation split, nats per character:")
    print(f"windows of {about.maxlen}: {np.mean(of_windows):.4f}")
    print(f"context that goes on: {np.mean(of_context[about.maxlen - 1 :]):.4f}")


def losses(model: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute the loss of each target, in nats."""
    import keras

    return keras.losses.sparse_categorical_crossentropy(y, model(x, training=False)).numpy()


if __name__ == "__main__":
    run_stage(main)
