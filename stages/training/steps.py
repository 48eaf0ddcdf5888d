"""Training and validation steps: gradients through Keras and autodiff, and the compiled step around them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.model.microbatches import (
    BatchGradients,
    LossAndGradients,
    MicrobatchGradients,
    sum_in_order,
)
from stages.model.regularization import output_mask

# (x, y, weight, key) -> mean loss, or with a state (x, y, weight, key, goes_on, *before) -> loss, *after
TrainStep = Callable[..., Any]
# (x, y, weight) -> sum of losses
ValidationStep = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def keras_microbatch(model: keras.Sequential) -> MicrobatchGradients:
    """Build the function that computes one microbatch through Keras's layers, on a GPU cuDNN's LSTM.

    A model with `return_sequences` predicts the character after each position; its loss is the mean over
    positions. Dropout draws from the key, so that what a step leaves out follows from the step's number and
    not from the steps before.

    Autodiff adds with `tf.add_n` (see `sum_in_order`), here never more than two numbers that are not 0,
    and these give the same sum in either order.

    Args:
        model: a model of `build_model`.

    Returns:
        A function of x (n, maxlen) and y (n,), int32 indices, share (n,) and key (2,) int32. It returns
        the microbatch's part of the loss and of the gradients.
    """
    size = model.output_shape[-1]

    def gradients_of(x, y, share, key) -> LossAndGradients:
        with tf.GradientTape() as tape:
            outputs = tf.one_hot(x, size)
            for number, layer in enumerate(model.layers):
                if isinstance(layer, keras.layers.Dropout):
                    mask = output_mask(
                        key, number, layer.rate, (*reversed(x.shape), outputs.shape[-1]), False
                    )
                    mask = tf.cast(mask, outputs.dtype)
                    outputs *= mask[-1] if outputs.shape.rank == 2 else tf.transpose(mask, (1, 0, 2))
                else:
                    outputs = layer(outputs)
            if outputs.shape.rank == 3:
                losses = tf.reduce_mean(_losses_at_positions(x, y, outputs), axis=1)
            else:
                losses = keras.losses.categorical_crossentropy(tf.one_hot(y, size), outputs)
            loss = tf.reduce_sum(losses * share)
        return loss, tape.gradient(loss, model.trainable_variables)

    return gradients_of


def train_step(
    gradients: BatchGradients,
    model: keras.Model,
    batch: int,
    rows: int | None = None,
    state: Sequence[tf.Tensor] = (),
    compile_update: bool = False,
) -> TrainStep:
    """Compile gradients and the optimizer's update into one step.

    Args:
        gradients: loss and gradients of a batch.
        model: the compiled model.
        batch: rows of a batch on all workers together.
        rows: rows of x and y in this process, if they are not the whole batch.
        state: tensors (rows, ...) like the state that `gradients` takes and returns.
        compile_update: whether to make one kernel of the optimizer's work.

    Returns:
        A function of x (rows, maxlen) and y (rows,), int32 indices, weight (batch,) float32 and key (2,)
        int32 that updates the weights and returns the weighted mean loss. With a state it also takes
        goes_on (rows,) bool, false for a row that begins with a zero state, and the state before, and
        returns the loss and the state after in one tuple.
    """
    x, y, _ = _signature(rows or batch, model.input_shape[1])
    signature = [x, y, tf.TensorSpec((batch,), tf.float32), tf.TensorSpec((2,), tf.int32)]
    if state:
        signature.append(tf.TensorSpec((rows or batch,), tf.bool))
        signature += [tf.TensorSpec(each.shape, each.dtype) for each in state]

    def step(x, y, weight, key, *goes_on_and_state):
        before = [
            tf.where(goes_on_and_state[0][:, None], each, tf.zeros((), each.dtype))
            for each in goes_on_and_state[1:]
        ]
        loss, grads, *after = gradients(x, y, weight, key, *before)
        update(grads)
        return (loss, *after) if state else loss

    def update(grads):
        model.optimizer.apply(grads, model.trainable_variables)

    if compile_update:
        update = tf.function(update, autograph=False, jit_compile=True)

    compiled = tf.function(step, autograph=False, input_signature=signature)

    @functools.cache
    def only_trace():
        # without TensorFlow's search for a call's signature, which takes half a millisecond
        return compiled.get_concrete_function()

    return lambda *arguments: only_trace()(*map(tf.convert_to_tensor, arguments))


def validation_step(model: keras.Model, batch: int, microbatches: int = 1) -> ValidationStep:
    """Compile the sum of the losses of a batch.

    The first sum is of the character after each window, as if the model predicted no other. Where it
    predicts at every position, a second one is of each window's mean over its positions. That one can be
    compared with the training loss.

    Args:
        model: the model.
        batch: rows of a batch.
        microbatches: their number, which has to divide the batch.

    Returns:
        A function of x (batch, maxlen) and y (batch,), int32 indices, and weight (batch,) float32 that
        returns (1,) or (2,) weighted sums of losses.
    """
    maxlen, size = model.input_shape[1:]

    def sum_of_microbatch(x, y, weight):
        probabilities = model(tf.one_hot(x, size), training=False)
        if probabilities.shape.rank == 3:
            at_positions = _losses_at_positions(x, y, probabilities)
            losses = [at_positions[:, -1], tf.reduce_mean(at_positions, axis=1)]
        else:
            losses = [keras.losses.categorical_crossentropy(tf.one_hot(y, size), probabilities)]
        return tf.stack([tf.reduce_sum(of_window * weight) for of_window in losses])

    def losses(*arrays):
        if microbatches == 1:  # a GPU's; there is no kernel that splits int32 there
            return sum_of_microbatch(*arrays)
        parts = zip(*(tf.split(array, microbatches) for array in arrays), strict=True)
        return sum_in_order(*(sum_of_microbatch(*part) for part in parts))

    return tf.function(losses, autograph=False, input_signature=_signature(batch, maxlen))


def padded(x: np.ndarray, y: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill up a batch to the size that a compiled step takes.

    Args:
        x: (n, maxlen) indices.
        y: (n,) indices.
        size: rows, at least n.

    Returns:
        x (size, maxlen) and y (size,), int32, and weights (size,) float32, 0 for the rows that only pad.
    """
    n = len(x)
    rows = np.zeros((size, x.shape[1]), np.int32)
    targets = np.zeros(size, np.int32)
    weight = np.zeros(size, np.float32)
    rows[:n], targets[:n], weight[:n] = x, y, 1
    return rows, targets, weight


def _losses_at_positions(x: tf.Tensor, y: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """Compute (n, maxlen) losses of the character after each position."""
    size = probabilities.shape[-1]
    # one-hot first: TensorFlow takes a slice of int32 on the host, where a GPU would wait for it
    targets = tf.concat([tf.one_hot(x, size)[:, 1:], tf.one_hot(y, size)[:, None]], axis=1)
    return keras.losses.categorical_crossentropy(targets, probabilities)


def _signature(batch: int, maxlen: int) -> list[tf.TensorSpec]:
    """List the types of (x, y, weight)."""
    return [
        tf.TensorSpec((batch, maxlen), tf.int32),
        tf.TensorSpec((batch,), tf.int32),
        tf.TensorSpec((batch,), tf.float32),
    ]
