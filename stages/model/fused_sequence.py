r"""The fused sequence step: loss and gradients of all models but the article's, on a CPU.

It computes what Keras's own layers compute, with the same variables, for `Input -> [embedding] -> cells,
each followed by dropout or not -> Dense(softmax)`, from any state on. As in the fused LSTM step, the product
of a one-hot character is a look-up and what lies between two products is one kernel. A model that predicts
at every position has more to gain, since what does not wait for the step before is one large product over
all positions: the logits, the inputs of the second layer, and every weight's gradient.

With X (T n, .) for the inputs of all T positions of n windows, one row each, H for the states before them:

    zx = X W + b for all positions at once;   zh_t = h_{t-1} U, position by position (see `cells.py`)
    logits = H' D + d,   loss = -sum w log softmax(logits)[y] / T,  w being each window's share of the batch
    dlogits = (softmax(logits) - onehot(y)) w / T,   dD = H'^T dlogits,   dH' = dlogits D^T
    for t = T..1:  dzx_t, dzh_t from dh_t (`cells.py`),   dh_{t-1} += dzh_t U^T
    dU = H^T dZh,   dW = X^T dZx,   db = sum of dZx's rows,   dX = dZx W^T

The first layer's X W is a look-up, and its dW a sum of dZx's rows by character, so neither takes longer with
more characters. An embedding E is folded into the first kernel: the rows of E W are what the characters look
up. The state before the window is a constant to the gradient (truncated back-propagation through time).

Memory: 7 H floats for each position and layer of an LSTM until the way back, and 4 H more each for zx and
for dz. The positions are unrolled, so a longer window takes longer to compile.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from stages.model.cells import CELLS, Cell
from stages.model.fused_layer import Layer, product_over_rows
from stages.model.microbatches import BatchGradients, Exchange, over_microbatches
from stages.model.regularization import Regularization, drop_weights, output_mask, tie_gradients


class Stack(NamedTuple):
    """The parts of a model.

    Attributes:
        cell: the kind of its recurrent cells.
        units: hidden units of each layer.
        dropout: for each layer the rate of the dropout after it and that layer's number in the model.
        embedding: whether there is one.
        all_positions: whether the model predicts at every position, not only after the window.
    """

    cell: Cell
    units: list[int]
    dropout: list[tuple[float, int]]
    embedding: bool
    all_positions: bool

    def zero_state(self, rows: int, dtype: tf.DType) -> list[tf.Tensor]:
        """Create the state before a text: for each layer h, in `dtype`, and the cell's memory."""
        return [
            tf.zeros((rows, units), dtype if number == 0 else tf.float32)
            for units in self.units
            for number in range(1 + self.cell.memories)
        ]


def stack_of(model: keras.Sequential) -> Stack:
    """Take a model of `build_model` apart."""
    layers = list(enumerate(model.layers))
    recurrent = [(number, layer) for number, layer in layers if isinstance(layer, keras.layers.RNN)]
    rates = {number: layer.rate for number, layer in layers if isinstance(layer, keras.layers.Dropout)}
    kinds = {keras.layers.LSTM: "lstm", keras.layers.GRU: "gru", keras.layers.SimpleRNN: "rnn"}
    return Stack(
        cell=CELLS[kinds[type(recurrent[0][1])]],
        units=[layer.units for _, layer in recurrent],
        dropout=[(rates.get(number + 1, 0.0), number + 1) for number, _ in recurrent],
        embedding=recurrent[0][0] > 0,
        all_positions=len(model.output_shape) == 3,
    )


@tf.function(jit_compile=True, autograph=False)
def losses_kernel(logits, bias, targets):
    """Compute the cross-entropy at each position.

    Args:
        logits: (rows, V) without the bias.
        bias: (V,); its type is that of the results.
        targets: (rows,) int32.

    Returns:
        (rows,) losses and (rows, V) derivatives by the logits.
    """
    logits = tf.cast(logits, bias.dtype) + bias
    hot = tf.one_hot(targets, logits.shape[1], dtype=bias.dtype)
    shifted = logits - tf.reduce_max(logits, axis=1, keepdims=True)
    exponentials = tf.exp(shifted)
    total = tf.reduce_sum(exponentials, axis=1, keepdims=True)
    losses = tf.math.log(total)[:, 0] - tf.reduce_sum(shifted * hot, axis=1)
    return losses, exponentials / total - hot


class SequencePass:
    """A forward pass of a microbatch, and its way back.

    Attributes:
        losses: (T, n) cross-entropy at each position, or (1, n) after the last one.
        state: after the last position, as `Stack.zero_state` has it.
    """

    def __init__(
        self,
        stack: Stack,
        weights: list[tf.Tensor],
        x: tf.Tensor,
        y: tf.Tensor,
        state: Sequence[tf.Tensor],
        dtype: tf.DType,
        masks: Callable[[int, tuple[int, int, int]], tf.Tensor | None],
    ) -> None:
        """Compute the losses.

        Args:
            stack: the parts of the model.
            weights: its weights, in Keras's order.
            x: (n, T) int32 indices.
            y: (n,) int32, the character after each window.
            state: before the windows; none for zero.
            dtype: of the products.
            masks: the dropout of a layer, counted from 0, for outputs of shape (T, n, H); None for none.
        """
        n, positions = x.shape
        state = state or stack.zero_state(n, dtype)
        self._stack, self._weights, self._positions = stack, weights, positions
        inputs = tf.concat(tf.unstack(x, axis=1), axis=0)
        targets = tf.concat([inputs[n:], y], axis=0) if stack.all_positions else y
        first = 1 if stack.embedding else 0
        kernel = tf.matmul(weights[0], weights[1]) if stack.embedding else weights[0]
        self._layers, self._masks, self.state = [], [], []
        each = 1 + stack.cell.memories
        for number, units in enumerate(stack.units):
            own = weights[first + 3 * number :][:3]
            if number == 0:
                own = [kernel, *own[1:]]
            layer = Layer(stack.cell, own, inputs, state[number * each :][:each], dtype)
            self._layers.append(layer)
            self.state += layer.state
            mask = masks(number, (positions, n, units))
            self._masks.append(mask)
            inputs = layer.outputs
            if mask is not None:
                inputs = tf.reshape(tf.reshape(inputs, (positions, n, units)) * mask, inputs.shape)
        self._top = inputs if stack.all_positions else inputs[-n:]
        self._dense = tf.cast(weights[-2], dtype)
        losses, self._d_logits = losses_kernel(tf.matmul(self._top, self._dense), weights[-1], targets)
        self.losses = tf.reshape(losses, (-1, n))

    def gradients(self, share: tf.Tensor) -> list[tf.Tensor]:
        """Compute the gradients of the sum of losses times `share` (n,), in the order of the weights."""
        positions, full = self._positions, self._weights[0].dtype
        targets = self.losses.shape[0]
        d_logits = self._d_logits * tf.tile(share, [targets])[:, None]
        low = tf.cast(d_logits, self._top.dtype)
        found = [product_over_rows(self._top, low, full), tf.reduce_sum(d_logits, axis=0)]
        d_outputs: Any = tf.split(tf.matmul(low, self._dense, transpose_b=True), targets)
        d_outputs = [None] * (positions - targets) + d_outputs
        for layer, mask in zip(reversed(self._layers), reversed(self._masks), strict=True):
            if mask is not None:
                each_mask = tf.unstack(mask) * (1 if mask.shape[0] > 1 or positions == 1 else positions)
                pairs = zip(d_outputs, each_mask, strict=True)
                d_outputs = [None if d is None else d * m for d, m in pairs]
            of_layer, d_outputs = layer.backward(d_outputs)
            found = of_layer + found
        if self._stack.embedding:
            embedding, kernel = self._weights[:2]
            d_rows = found[0]
            found[:1] = [
                tf.matmul(d_rows, kernel, transpose_b=True),
                tf.matmul(embedding, d_rows, transpose_a=True),
            ]
        return found


def sequence_gradients(
    model: keras.Sequential,
    microbatches: int,
    dtype: tf.DType = tf.float32,
    exchange: Exchange | None = None,
    regularization: Regularization | None = None,
) -> BatchGradients:
    """Build the function that computes a batch's mean loss, its gradients and the state after it.

    Args:
        model: a model of `build_model`.
        microbatches: as for `over_microbatches`.
        dtype: of the products.
        exchange: as for `over_microbatches`.
        regularization: None for none.

    Returns:
        A function as `over_microbatches` returns, with a state or without.
    """
    stack = stack_of(model)
    regularization = regularization or Regularization()
    variational = regularization.variational_dropout
    recurrent = [number for number, w in enumerate(model.trainable_variables) if "recurrent" in w.path]

    def gradients(x, y, weight, key, *state):
        # read once per batch, not once per microbatch
        weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
        masks = drop_weights(key, weights, recurrent, regularization.weight_dropout)
        masks |= drop_weights(key, weights, [0], regularization.embedding_dropout, by_row=True)

        def of_microbatch(x, y, share, key, *state):
            def dropout(layer: int, shape: tuple[int, int, int]) -> tf.Tensor | None:
                rate, number = stack.dropout[layer]
                return output_mask(key, number, rate, shape, variational, dtype) if rate else None

            forward = SequencePass(stack, weights, x, y, state, dtype, dropout)
            share /= x.shape[1] if stack.all_positions else 1
            loss = tf.reduce_sum(forward.losses * share)
            return loss, forward.gradients(share), *(forward.state if state else [])

        step = over_microbatches(of_microbatch, microbatches, exchange)
        loss, found, *after = step(x, y, weight, key, *state)
        for number, mask in masks.items():
            found[number] *= mask
        if regularization.tied:
            tie_gradients(found)
        return loss, found, *after

    return gradients


def sequence_losses(
    model: keras.Sequential, microbatches: int
) -> Callable[..., tuple[tf.Tensor, list[tf.Tensor]]]:
    """Build the function that computes the losses of a batch without dropout, in float32.

    Args:
        model: a model of `build_model` that predicts at every position.
        microbatches: their number, which has to divide the batch.

    Returns:
        A function of x (batch, T) and y (batch,), int32 indices, and the state before. It returns (batch, T)
        losses and the state after.
    """
    stack = stack_of(model)

    def losses(x, y, *state):
        weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
        parts = [
            SequencePass(stack, weights, part[0], part[1], part[2:], tf.float32, lambda *_: None)
            for part in zip(*(tf.split(each, microbatches) for each in (x, y, *state)), strict=True)
        ]
        states = [tf.concat(each, axis=0) for each in zip(*(part.state for part in parts), strict=True)]
        return tf.concat([tf.transpose(part.losses) for part in parts], axis=0), states

    return losses
