"""The model, loss and optimizer in Keras, by default the article's, and how they are saved."""

import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.files import write_bytes_whole

CELLS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
OPTIMIZERS = {"rmsprop": keras.optimizers.RMSprop, "adam": keras.optimizers.Adam}


def build_model(
    maxlen: int,
    charset: int,
    units: int,
    cell: str = "lstm",
    layers: int = 1,
    dropout: float = 0.0,
    embedding: int | None = None,
    every_position: bool = False,
) -> keras.Sequential:
    """`Input -> LSTM(units) -> Dense(charset, softmax)`, the article's model, or one of its relatives.

    cell: lstm, gru or rnn; layers of them, each followed by `dropout` if that is above 0; embedding:
    numbers that each character becomes first, None for its one-hot row itself. Takes (batch, maxlen,
    charset) one-hot windows, so an embedding is a product with its table, whose rows a look-up would
    give. Gives (batch, charset) probabilities of the character after the window, or, with
    `every_position`, (batch, maxlen, charset) of that after each of its characters: the same weights.
    """
    stack = [keras.Input(shape=(maxlen, charset), name="window")]
    if embedding is not None:
        stack.append(keras.layers.Dense(embedding, use_bias=False, name="embedding"))
    for number in range(layers):
        suffix = f"_{number}" if layers > 1 else ""
        sequences = every_position or number < layers - 1
        stack.append(CELLS[cell](units, return_sequences=sequences, name=cell + suffix))
        if dropout:
            stack.append(keras.layers.Dropout(dropout, seed=0, name="dropout" + suffix))
    stack.append(keras.layers.Dense(charset, activation="softmax", name="dense"))
    return keras.Sequential(stack, name="char_lstm")


def compile_model(
    model: keras.Model, learning_rate: float, optimizer: str = "rmsprop", clip_norm: float | None = None
) -> keras.optimizers.Optimizer:
    """Give the model the article's loss and an optimizer; returns the optimizer, its slots built.

    optimizer: rmsprop, the article's, or adam. clip_norm: the largest norm of all gradients together
    (Pascanu et al. 2013), None for any.
    """
    built = OPTIMIZERS[optimizer](learning_rate=learning_rate, global_clipnorm=clip_norm, name=optimizer)
    model.compile(loss=keras.losses.CategoricalCrossentropy(), optimizer=built)
    built.build(model.trainable_variables)
    return built


def recurrence(model: keras.Sequential) -> tuple[list[int], Callable[..., Any], Callable[..., Any]]:
    """A model of `build_model` a character at a time: (sizes, advance, logits).

    sizes: of each state tensor. advance(x, states): x (n, charset) one-hot, states a list of (n, size);
    returns the topmost output (n, units) and the new states. logits(output): (n, charset).
    """
    *hidden, dense = model.layers
    embedding = next((layer for layer in hidden if layer.name == "embedding"), None)
    cells = [layer.cell for layer in hidden if isinstance(layer, keras.layers.RNN)]
    state_sizes = [[c.state_size] if isinstance(c.state_size, int) else c.state_size for c in cells]

    def advance(x, states):
        below = x if embedding is None else embedding(x)
        new_states: list[Any] = []
        for cell, sizes in zip(cells, state_sizes, strict=True):
            first = len(new_states)
            below, new = cell(below, list(states[first : first + len(sizes)]))
            new_states += new
        return below, new_states

    def logits(output):
        return keras.ops.matmul(output, dense.kernel) + dense.bias

    return [size for sizes in state_sizes for size in sizes], advance, logits


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
