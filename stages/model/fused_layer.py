"""One recurrent layer of the fused sequence step: all positions of a window forward, and back.

See `fused_sequence.py` for the formulas.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from stages.model.cells import Cell, Tensors, backward_kernel, forward_kernel


class Layer:
    """The forward pass of one recurrent layer, and its way back.

    Attributes:
        outputs: (T n, H), h at each position.
        state: after the last position: h (n, H) and the memory.
    """

    def __init__(
        self, cell: Cell, weights: Sequence[tf.Tensor], inputs, state: Sequence[tf.Tensor], dtype
    ) -> None:
        """Run the layer over a window.

        Args:
            cell: its kind.
            weights: W (I, G H), U (H, G H), b (G H,) or (2, G H).
            inputs: (T n,) int32 indices into the rows of W, or (T n, I).
            state: h (n, H) and the memory.
            dtype: of the products.
        """
        kernel, recurrent, bias = weights
        self._cell, self._inputs, self._like = cell, inputs, tf.zeros((), kernel.dtype)
        self._recurrent = tf.cast(recurrent, dtype)
        self._two_biases = bias.shape.rank == 2
        bias, recurrent_bias = tf.unstack(bias) if self._two_biases else (bias, self._like)
        self._looks_up = inputs.dtype == tf.int32
        self._kernel = kernel if self._looks_up else tf.cast(kernel, dtype)
        zx = tf.gather(kernel, inputs) if self._looks_up else tf.matmul(inputs, self._kernel)
        h, memory = state[0], tuple(state[1:])
        states = [h]
        self._kept: list[tuple[Tensors, Tensors, Tensors]] = []
        for zx_t in tf.split(zx, inputs.shape[0] // h.shape[0]):
            zh = tf.matmul(h, self._recurrent)
            kept, h, after = forward_kernel(cell, zx_t, bias, zh, recurrent_bias, memory)
            self._kept.append((kept, memory, after))
            states.append(h)
            memory = after
        self.state = [h, *memory]
        all_states = tf.concat(states, axis=0)
        self._before, self.outputs = all_states[: -h.shape[0]], all_states[h.shape[0] :]

    def backward(self, d_outputs: list[tf.Tensor | None]) -> tuple[list[tf.Tensor], list[tf.Tensor] | None]:
        """Differentiate the layer.

        Args:
            d_outputs: the derivative by the output at each position, T of (n, H); None for 0.

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
            dhs = later if d_outputs[t] is None else (d_outputs[t], *later)
            by_input[t], dzh, d_memory = backward_kernel(
                self._cell, *self._kept[t], dhs, d_memory, self._like
            )
            by_state[t] = by_input[t] if dzh is None else dzh
            later = (tf.matmul(by_state[t], transposed),) if t else ()
        dzx = tf.concat(by_input, axis=0)
        dzh = dzx if by_state[0] is by_input[0] else tf.concat(by_state, axis=0)
        d_recurrent = product_over_rows(self._before, dzh, self._like.dtype)
        if self._looks_up:
            d_kernel = sum_by_index(dzx, self._inputs, self._kernel)
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
def sum_by_index(rows, indices, like):
    """Sum (n, columns) rows that have the same index, (n,) of them, in the shape and type of `like`."""
    return tf.math.unsorted_segment_sum(tf.cast(rows, like.dtype), indices, like.shape[0])


@tf.function(jit_compile=True, autograph=False)
def sum_of_rows(rows, like):
    """Sum (rows, columns) over the rows, in the type of `like`."""
    return tf.reduce_sum(tf.cast(rows, like.dtype), axis=0)
