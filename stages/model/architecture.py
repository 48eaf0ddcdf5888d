"""The models, their loss and optimizers in Keras; the defaults are the article's."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

CELLS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
HAVE_CUDNN = {"lstm", "gru"}  # of the cells, in Keras
OPTIMIZERS = {"rmsprop": keras.optimizers.RMSprop, "adam": keras.optimizers.Adam}


def build_model(
    maxlen: int,
    vocab_size: int,
    units: int,
    cell: str = "lstm",
    layers: int = 1,
    dropout: float = 0.0,
    embedding: int | None = None,
    return_sequences: bool = False,
    dtype: str | None = None,
    use_cudnn: bool | str = "auto",
) -> keras.Sequential:
    """Build `Input -> LSTM(units) -> Dense(vocab_size, softmax)`, the article's model, or a variant.

    The model takes (batch, maxlen, vocab_size) one-hot windows. So an embedding is a product with its
    table, whose rows a look-up would give.

    Args:
        maxlen: characters in a window.
        vocab_size: distinct characters.
        units: hidden units of each recurrent layer.
        cell: lstm, gru or rnn.
        layers: recurrent layers, each followed by dropout if `dropout` is above 0.
        dropout: share of each recurrent layer's outputs that a training step leaves out.
        embedding: size of the vector that each character becomes first; None for its one-hot row itself.
        return_sequences: whether to predict the character after each position, not only after the window.
            The weights are the same.
        dtype: Keras's dtype policy of all layers but the last, whose probabilities are float32; None for
            float32.
        use_cudnn: whether LSTM and GRU compute with cuDNN; "auto" for where they can.

    Returns:
        A model that gives (batch, vocab_size) probabilities of the character after the window, or
        (batch, maxlen, vocab_size) with `return_sequences`.
    """
    stack = [keras.Input(shape=(maxlen, vocab_size), name="window")]
    if embedding is not None:
        stack.append(keras.layers.Dense(embedding, use_bias=False, dtype=dtype, name="embedding"))
    for number in range(layers):
        suffix = f"_{number}" if layers > 1 else ""
        sequences = return_sequences or number < layers - 1
        options = {"return_sequences": sequences, "dtype": dtype, "name": cell + suffix}
        if cell in HAVE_CUDNN:
            options["use_cudnn"] = use_cudnn
        stack.append(CELLS[cell](units, **options))
        if dropout:
            stack.append(keras.layers.Dropout(dropout, seed=0, dtype=dtype, name="dropout" + suffix))
    stack.append(keras.layers.Dense(vocab_size, activation="softmax", name="dense"))
    return keras.Sequential(stack, name="char_lstm")


def compile_model(
    model: keras.Model,
    learning_rate: float,
    optimizer: str = "rmsprop",
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
    ema_momentum: float | None = None,
) -> keras.optimizers.Optimizer:
    """Compile a model with the article's loss, categorical cross-entropy.

    Args:
        model: the model.
        learning_rate: the optimizer's learning rate.
        optimizer: rmsprop, the article's, or adam.
        clip_norm: the largest norm of all gradients together (Pascanu et al. 2013); None for any.
        weight_decay: a step first makes each weight but the biases smaller by this times the learning rate
            times the weight (decoupled weight decay, Loshchilov & Hutter 2019).
        ema_momentum: of an exponential moving average of the weights that the optimizer keeps; None for none.

    Returns:
        The optimizer, its variables built.
    """
    options: dict[str, Any] = {"global_clipnorm": clip_norm, "weight_decay": weight_decay or None}
    if ema_momentum is not None:
        options |= {"use_ema": True, "ema_momentum": ema_momentum}
    built = OPTIMIZERS[optimizer](learning_rate=learning_rate, name=optimizer, **options)
    if weight_decay:
        built.exclude_from_weight_decay(var_names=["bias"])
    model.compile(loss=keras.losses.CategoricalCrossentropy(), optimizer=built)
    built.build(model.trainable_variables)
    return built


def recurrence(model: keras.Sequential) -> tuple[list[int], Callable[..., Any], Callable[..., Any]]:
    """Take a model apart into functions that work one character at a time.

    Args:
        model: a model of `build_model`.

    Returns:
        The size of each state tensor; `advance(x, states)`, which takes x (n, vocab_size) one-hot and a
        list of (n, size) states and returns the topmost output (n, units) and the new states; and
        `logits(output)`, which returns (n, vocab_size).
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
    """Copy the optimizer's variables (step count, learning rate, moving averages), in Keras's order."""
    return [variable.numpy() for variable in optimizer.variables]


def set_optimizer_state(optimizer: keras.optimizers.Optimizer, state: list[np.ndarray]) -> None:
    """Set the optimizer's variables to what `optimizer_state` returned."""
    for variable, value in zip(optimizer.variables, state, strict=True):
        variable.assign(value)
