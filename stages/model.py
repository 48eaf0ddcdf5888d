"""The article's model, loss and optimizer, in Keras, and how they are saved."""

import io
import json
import os
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.files import write_bytes_whole


def build_model(maxlen: int, charset: int, units: int) -> keras.Sequential:
    """`Input -> LSTM(units) -> Dense(charset, softmax)`.

    Takes (batch, maxlen, charset) one-hot windows, gives (batch, charset) probabilities.
    """
    return keras.Sequential(
        [
            keras.Input(shape=(maxlen, charset), name="window"),
            keras.layers.LSTM(units, name="lstm"),
            keras.layers.Dense(charset, activation="softmax", name="dense"),
        ],
        name="char_lstm",
    )


def compile_model(model: keras.Model, learning_rate: float) -> keras.optimizers.Optimizer:
    """Give the model the article's loss and optimizer; returns the optimizer, its slots built."""
    optimizer = keras.optimizers.RMSprop(learning_rate=learning_rate, name="rmsprop")
    model.compile(loss=keras.losses.CategoricalCrossentropy(), optimizer=optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def optimizer_state(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    """The optimizer's variables (step count, learning rate, moving averages), in Keras's order."""
    return [variable.numpy() for variable in optimizer.variables]


def set_optimizer_state(optimizer: keras.optimizers.Optimizer, state: list[np.ndarray]) -> None:
    """Set what `optimizer_state` gave. Raises ValueError where shapes differ."""
    for variable, value in zip(optimizer.variables, state, strict=True):
        variable.assign(value)


def save_model(model: keras.Model, path: Path) -> None:
    """Save to a `.keras` file whose bytes follow from the model alone.

    Keras writes the time into the archive's metadata and into each member's header, and memory
    addresses (`shared_object_id`) into the configuration. The times are set to a constant here, the
    addresses numbered in their order, and the members stand in the order of their names.
    """
    with tempfile.TemporaryDirectory() as scratch:
        saved = os.path.join(scratch, "model.keras")
        model.save(saved)
        with zipfile.ZipFile(saved) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
    metadata: dict[str, Any] = json.loads(members["metadata.json"])
    metadata["date_saved"] = "1980-01-01@00:00:00"
    members["metadata.json"] = json.dumps(metadata).encode()
    numbers: dict[bytes, int] = {}
    members["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda found: str(numbers.setdefault(found[0], len(numbers))).encode(),
        members["config.json"],
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # ZipInfo's own date is 1980-01-01
    write_bytes_whole(path, buffer.getvalue())
