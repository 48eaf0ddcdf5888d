r"""The fused sequence step: loss and gradients of models that predict at every position, on a CPU.

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

An embedding E is folded into the first kernel: the rows of E W are what the characters look up. The state
before the window is a constant to the gradient (truncated back-propagation through time).

Regularization (all draws follow from the step's key):

- dropout on each recurrent layer's outputs, drawn for each position (Srivastava et al. 2014) or once for
  all positions of a window (variational dropout: Gal & Ghahramani 2016)
- DropConnect on the recurrent weights U, drawn once for a step (Wan et al. 2013; Merity et al. 2018):
  U' = U m / (1 - p), with m 0 with probability p and else 1; dU = dU' m / (1 - p)
- tied embedding and output (Press & Wolf 2017): D is E^T from the start, and both get the sum of their
  gradients. The optimizers treat each number by itself, so they stay equal.

Memory: 6 H floats for each position of an LSTM until the way back, 4 H more for dz.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from stages.model.cells import CELLS, Cell, Tensors, backward_kernel, forward_kernel
from stages.model.microbatches import (
    BatchGradients,
    Exchange,
    fold_in,
    over_microbatches,
    sum_in_order,
)

WEIGHT_DROPOUT = 1000  # draws of the weights, apart from those of layers, which have their numbers


class Regularization(NamedTuple):
    """What a training step does against overfitting, beside the dropout layers of the model.

    Attributes:
        weight_dropout: share of the recurrent weights that a step leaves out.
        variational_dropout: whether dropout leaves out the same outputs at all positions of a window.
        tied: whether the embedding and the output layer share their weights.
    """

    weight_dropout: float = 0.0
    variational_dropout: bool = False
    tied: bool = False


class Stack(NamedTuple):
    """The parts of a model.

    Attributes:
        cell: the kind of its recurrent cells.
        units: hidden units of each layer.
        dropout: for each layer the rate of the dropout after it and that layer's number in the model.
        embedding: whether there is one.
    """

    cell: Cell
    units: list[int]
    dropout: list[tuple[float, int]]
    embedding: bool

    def zero_state(self, rows: int, dtype: tf.DType) -> list[tf.Tensor]:
        """Create the state before a text: for each layer h, in `dtype`, and the cell's memory."""
        return [
            tf.zeros((rows, units), dtype if number == 0 else tf.float32)
            for units in self.units
            for number in range(1 + self.cell.memories)
        ]


def stack_of(model: keras.Sequential) -> Stack | None:
    """Take a model of `build_model` apart.

    Args:
        model: the model.

    Returns:
        Its parts; None if it does not predict at every position, so that the step does not apply.
    """
    if len(model.output_shape) != 3 or any(w.dtype != "float32" for w in model.trainable_variables):
        return None
    layers = list(enumerate(model.layers))
    recurrent = [(number, layer) for number, layer in layers if isinstance(layer, keras.layers.RNN)]
    rates = {number: layer.rate for number, layer in layers if isinstance(layer, keras.layers.Dropout)}
    kinds = {keras.layers.LSTM: "lstm", keras.layers.GRU: "gru", keras.layers.SimpleRNN: "rnn"}
    return Stack(
        cell=CELLS[kinds[type(recurrent[0][1])]],
        units=[layer.units for _, layer in recurrent],
        dropout=[(rates.get(number + 1, 0.0), number + 1) for number, _ in recurrent],
        embedding=recurrent[0][0] > 0,
    )


def dropout_mask(key: tf.Tensor, rate: float, shape: tuple[int, ...], dtype: tf.DType) -> tf.Tensor:
    """Draw a mask: 0 with probability `rate`, else 1 / (1 - rate)."""
    draws = tf.random.stateless_uniform(shape, key, alg="philox")
    return tf.cast(draws >= rate, dtype) * (1 / (1 - rate))


def output_mask(key, number: int, rate: float, shape: tuple[int, int, int], variational: bool, dtype):
    """Draw the dropout of a layer's outputs.

    Args:
        key: (2,) int32, of the microbatch.
        number: of the dropout layer in the model.
        rate: the share to leave out.
        shape: (T, n, H).
        variational: whether to draw once for all positions.
        dtype: of the mask.

    Returns:
        (T, n, H), or (1, n, H) if variational.
    """
    return dropout_mask(fold_in(key, number), rate, (1, *shape[1:]) if variational else shape, dtype)


class Layer:
    """The forward pass of one recurrent layer, and its way back.

    Attributes:
        outputs: (T n, H), h at each position.
        state: after the last position: h (n, H) and the memory.
    """

    def __init__(self, cell: Cell, weights: list[tf.Tensor], inputs, state: list[tf.Tensor], dtype) -> None:
        """Run the layer over a window.

        Args:
            cell: its kind.
            weights: W (I, G H), U (H, G H), b (G H,) or (2, G H).
            inputs: T (n,) int32 indices into the rows of W, or a (T n, I) tensor and T.
            state: h (n, H) and the memory.
            dtype: of the products.
        """
        kernel, recurrent, bias = weights
        self._cell, self._like = cell, tf.zeros((), kernel.dtype)
        self._recurrent = tf.cast(recurrent, dtype)
        self._two_biases = bias.shape.rank == 2
        bias, recurrent_bias = tf.unstack(bias) if self._two_biases else (bias, self._like)
        self._looked_up = inputs if isinstance(inputs, list) else None
        if self._looked_up is not None:
            self._rows, rows = kernel.shape[0], kernel + bias
            steps = [(rows, x) for x in inputs]
        else:
            self._inputs, positions = inputs
            self._kernel = tf.cast(kernel, dtype)
            steps = [(zx, bias) for zx in tf.split(tf.matmul(self._inputs, self._kernel), positions)]
        h, memory = state[0], tuple(state[1:])
        self._before: list[tf.Tensor] = []  # h before each position
        self._kept: list[tuple[Tensors, Tensors, Tensors]] = []
        for step in steps:
            zh = tf.matmul(h, self._recurrent)
            kept, after_h, after = forward_kernel(cell, step, zh, recurrent_bias, memory)
            self._kept.append((kept, memory, after))
            self._before.append(h)
            h, memory = after_h, after
        self.state = [h, *memory]
        self.outputs = tf.concat([*self._before[1:], h], axis=0)

    def backward(self, d_outputs: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor] | None]:
        """Differentiate the layer.

        Args:
            d_outputs: the derivative by the output at each position, T of (n, H).

        Returns:
            The gradients of W, U and b, and the derivative by the inputs at each position, T of (n, I); None
            where these are looked up.
        """
        transposed = tf.transpose(self._recurrent)
        positions = len(self._kept)
        by_input: list[Any] = [None] * positions
        by_state: list[Any] = [None] * positions
        d_memory = tuple(tf.zeros_like(each) for each in self._kept[-1][2])
        later: Tensors = ()
        for t in reversed(range(positions)):
            dhs = (d_outputs[t], *later)
            by_input[t], dzh, d_memory = backward_kernel(self._cell, *self._kept[t], dhs, d_memory, self._like)
            by_state[t] = by_input[t] if dzh is None else dzh
            later = (tf.matmul(by_state[t], transposed),) if t else ()
        dzx = tf.concat(by_input, axis=0)
        dzh = dzx if by_state[0] is by_input[0] else tf.concat(by_state, axis=0)
        d_recurrent = product_over_rows(tf.concat(self._before, axis=0), dzh, self._like.dtype)
        if self._looked_up is not None:
            hot = tf.one_hot(tf.concat(self._looked_up, axis=0), self._rows, dtype=dzx.dtype)
            d_kernel = product_over_rows(hot, dzx, self._like.dtype)
            d_bias, d_inputs = tf.reduce_sum(d_kernel, axis=0), None  # each position has one row
        else:
            d_kernel = product_over_rows(self._inputs, dzx, self._like.dtype)
            d_bias = sum_of_rows(dzx, self._like)
            d_inputs = tf.split(tf.matmul(dzx, self._kernel, transpose_b=True), positions)
        if self._two_biases:
            d_bias = tf.stack([d_bias, sum_of_rows(dzh, self._like)])
        return [d_kernel, d_recurrent, d_bias], d_inputs


def product_over_rows(left: tf.Tensor, right: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Compute left^T right in the type of both, as `dtype`."""
    return tf.cast(tf.matmul(left, right, transpose_a=True), dtype)


@tf.function(jit_compile=True, autograph=False)
def sum_of_rows(rows, like):
    """Sum (rows, columns) over the rows, in the type of `like`."""
    return tf.reduce_sum(tf.cast(rows, like.dtype), axis=0)


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
        losses: (T, n) cross-entropy at each position.
        state: after the last position, as `Stack.zero_state` has it.
    """

    def __init__(
        self,
        stack: Stack,
        weights: list[tf.Tensor],
        x: tf.Tensor,
        y: tf.Tensor,
        state: list[tf.Tensor],
        dtype: tf.DType,
        masks: Callable[[int, tuple[int, int, int]], tf.Tensor | None],
    ) -> None:
        """Compute the losses.

        Args:
            stack: the parts of the model.
            weights: its weights, in Keras's order.
            x: (n, T) int32 indices.
            y: (n,) int32, the character after each window.
            state: before the windows.
            dtype: of the products.
            masks: the dropout of a layer, counted from 0, for outputs of shape (T, n, H); None for none.
        """
        n, positions = x.shape
        self._stack, self._weights, self._positions = stack, weights, positions
        inputs: Any = tf.unstack(x, axis=1)
        targets = tf.concat([*inputs[1:], y], axis=0)
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
            outputs = layer.outputs
            if mask is not None:
                outputs = tf.reshape(tf.reshape(outputs, (positions, n, units)) * mask, outputs.shape)
            inputs = (outputs, positions)
        self._top = inputs[0]
        self._dense = tf.cast(weights[-2], dtype)
        losses, self._d_logits = losses_kernel(tf.matmul(self._top, self._dense), weights[-1], targets)
        self.losses = tf.reshape(losses, (positions, n))

    def gradients(self, share: tf.Tensor) -> list[tf.Tensor]:
        """Compute the gradients of the sum of losses times `share` (n,), in the order of the weights."""
        positions, full = self._positions, self._weights[0].dtype
        d_logits = self._d_logits * tf.tile(share, [positions])[:, None]
        low = tf.cast(d_logits, self._top.dtype)
        found = [product_over_rows(self._top, low, full), tf.reduce_sum(d_logits, axis=0)]
        d_outputs: Any = tf.split(tf.matmul(low, self._dense, transpose_b=True), positions)
        for layer, mask in zip(reversed(self._layers), reversed(self._masks), strict=True):
            if mask is not None:
                each_mask = tf.unstack(mask) * (1 if mask.shape[0] > 1 or positions == 1 else positions)
                d_outputs = [d * m for d, m in zip(d_outputs, each_mask, strict=True)]
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
        model: a model that has a `stack_of`.
        microbatches: as for `over_microbatches`.
        dtype: of the products.
        exchange: as for `over_microbatches`.
        regularization: None for none.

    Returns:
        A function as `over_microbatches` returns, with a state.
    """
    stack = stack_of(model)
    assert stack is not None
    weight_dropout, variational, tied = regularization or Regularization()
    recurrent = [number for number, w in enumerate(model.trainable_variables) if "recurrent" in w.path]

    def gradients(x, y, weight, key, *state):
        # read once per batch, not once per microbatch
        weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
        weight_masks = {}
        if weight_dropout:
            for number in recurrent:
                own = fold_in(key, WEIGHT_DROPOUT + number)
                weight_masks[number] = dropout_mask(own, weight_dropout, weights[number].shape, tf.float32)
                weights[number] *= weight_masks[number]

        def of_microbatch(x, y, share, key, *state):
            def masks(layer: int, shape: tuple[int, int, int]) -> tf.Tensor | None:
                rate, number = stack.dropout[layer]
                return output_mask(key, number, rate, shape, variational, dtype) if rate else None

            forward = SequencePass(stack, weights, x, y, state, dtype, masks)
            share /= x.shape[1]
            loss = tf.reduce_sum(forward.losses * share)
            return loss, forward.gradients(share), *forward.state

        step = over_microbatches(of_microbatch, microbatches, exchange)
        loss, found, *after = step(x, y, weight, key, *state)
        for number, mask in weight_masks.items():
            found[number] *= mask
        if tied:
            both = sum_in_order(found[0], tf.transpose(found[-2]))
            found[0], found[-2] = both, tf.transpose(both)
        return loss, found, *after

    return gradients


def sequence_losses(model: keras.Sequential, microbatches: int) -> Callable[..., tuple[tf.Tensor, list[tf.Tensor]]]:
    """Build the function that computes the losses of a batch without dropout, in float32.

    Args:
        model: a model that has a `stack_of`.
        microbatches: their number, which has to divide the batch.

    Returns:
        A function of x (batch, T) and y (batch,), int32 indices, and the state before. It returns (batch, T)
        losses and the state after.
    """
    stack = stack_of(model)
    assert stack is not None

    def losses(x, y, *state):
        weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
        parts = [
            SequencePass(stack, weights, *part[:2], part[2:], tf.float32, lambda *_: None)
            for part in zip(*(tf.split(each, microbatches) for each in (x, y, *state)), strict=True)
        ]
        states = [tf.concat(each, axis=0) for each in zip(*(part.state for part in parts), strict=True)]
        return tf.concat([tf.transpose(part.losses) for part in parts], axis=0), states

    return losses
